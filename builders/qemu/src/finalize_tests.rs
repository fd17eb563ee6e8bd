//! What comes out: images of every format, judged by `qemu-img`, their checksums judged by `sha256sum`.

use std::process::Command;
use std::sync::Arc;

use forge_machine::{Artefact, Attachments, Hypervisor, Machine, PortError, Standing, VmRef};

use super::*;
use crate::QemuHypervisor;
use crate::hypervisor::tests::{Rig, rig};

/// A VM whose disk holds something in the middle of nothing, stopped and ready to be finished.
async fn ready() -> Option<(Rig, VmRef, Arc<dyn Machine>)> {
    let rig = rig().await?;
    let mut content = vec![0_u8; 1 << 20];
    for (number, byte) in content.iter_mut().skip(300_000).take(200_000).enumerate() {
        *byte = u8::try_from(number / 1000 + 1).expect("small");
    }
    std::fs::write(rig.base(), content).expect("written");
    let at = rig.created().await;
    let machine = rig.hypervisor.machine(&at);
    machine.configure(&rig.spec, &rig.mark, &Attachments::default()).await.expect("configured");
    Some((rig, at, machine))
}

async fn finalize(rig: &Rig, machine: &Arc<dyn Machine>, finish: &Finish) -> Result<Artefact, PortError> {
    let task = machine.submit_finalize(finish).await.expect("submitted");
    rig.hypervisor.wait(&task).await?;
    machine.artefact(finish).await
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn compressed(finish: Finish) -> Finish {
    let Finish::Files { directory, name, formats, replace, about, .. } = finish else { panic!("files") };
    Finish::Files { directory, name, formats, compress: true, replace, about }
}

fn replacing(finish: Finish) -> Finish {
    let Finish::Files { directory, name, formats, compress, about, .. } = finish else { panic!("files") };
    Finish::Files { directory, name, formats, compress, replace: true, about }
}

/// The image as plain sectors, by `qemu-img`.
fn sectors(image: &Path, format: &str) -> Vec<u8> {
    let flat = image.with_extension("flat");
    let done = Command::new("qemu-img")
        .args(["convert", "-f", format, "-O", "raw", "--"])
        .args([image, flat.as_path()])
        .status()
        .expect("run");
    assert!(done.success());
    let bytes = std::fs::read(&flat).expect("read");
    std::fs::remove_file(&flat).expect("removed");
    bytes
}

fn qemu_img_agrees(image: &Path, format: &str) {
    let info = Command::new("qemu-img").args(["info", "--output=json"]).arg(image).output().expect("run");
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).expect("JSON");
    assert_eq!(info["format"], format, "{info}");
    assert_eq!(info["virtual-size"], 2 << 20, "{info}");
    assert_eq!(info["backing-filename"], serde_json::Value::Null, "{info}");
    if format != "raw" {
        let check = Command::new("qemu-img").args(["check", "-q", "-f", format]).arg(image).output();
        let check = check.expect("run");
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }
}

#[tokio::test]
async fn one_build_gives_qcow2_raw_and_vmdk_that_qemu_img_accepts_with_sums_and_a_manifest() {
    let Some((rig, at, machine)) = ready().await else { return };
    let wanted = rig.files();
    std::fs::write(rig.hypervisor.work_directory(&at).join(FIRMWARE_VARIABLES_FILE), "variables")
        .expect("written");
    let Artefact::Files { files } = finalize(&rig, &machine, &wanted).await.expect("finalized") else {
        panic!("files")
    };
    let output = rig.output();
    let expected = [
        "image.SHA256SUMS",
        "image.efivars.fd",
        "image.manifest.json",
        "image.qcow2",
        "image.raw",
        "image.vmdk",
    ];
    assert_eq!(names(&output), expected);
    let told: Vec<&Path> = files.iter().map(|(path, ..)| path.as_path()).collect();
    let listed = ["image.qcow2", "image.raw", "image.vmdk", "image.efivars.fd"].map(|name| output.join(name));
    assert_eq!(told, listed);
    let base = std::fs::read(rig.base()).expect("read");
    for format in ["qcow2", "raw", "vmdk"] {
        let image = output.join(format!("image.{format}"));
        qemu_img_agrees(&image, format);
        let content = sectors(&image, format);
        assert!(content.starts_with(&base) && content.iter().skip(base.len()).all(|byte| *byte == 0));
    }
    let sums = Command::new("sha256sum")
        .args(["--check", "--strict", "image.SHA256SUMS"])
        .current_dir(&output)
        .output()
        .expect("run");
    assert!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stderr));

    let text = std::fs::read(output.join("image.manifest.json")).expect("read");
    let manifest: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(manifest["virtual-size"], 2 << 20);
    assert_eq!(manifest["build"]["chain-id"], "CHAIN-test");
    assert_eq!(manifest["files"].as_array().map(Vec::len), Some(4));
    assert_eq!(manifest["files"][0]["size"], std::fs::metadata(&listed[0]).expect("there").len());

    // The raw image is sparse: its blocks are fewer than its length.
    let raw = std::fs::metadata(&listed[1]).expect("there");
    assert!(std::os::unix::fs::MetadataExt::blocks(&raw) * 512 < raw.len(), "{raw:?}");

    let seen = rig.hypervisor.standing(&at, &rig.mark.nonce).await.expect("asked");
    assert_eq!(seen, Standing::Committed);
    assert!(!rig.hypervisor.work_directory(&at).exists());
    // Another process, which remembers nothing, tells the same.
    let again = QemuHypervisor::new(rig.target()).machine(&at);
    assert_eq!(again.artefact(&wanted).await.expect("read again"), Artefact::Files { files });
    // And notices what was changed since.
    std::fs::write(&listed[1], "something else").expect("written");
    let error = again.artefact(&wanted).await.expect_err("changed");
    assert!(error.to_string().contains("not what its manifest says"), "{error}");
}

#[tokio::test]
async fn compressed_images_are_smaller_and_hold_the_same() {
    let Some((rig, _, machine)) = ready().await else { return };
    finalize(&rig, &machine, &compressed(rig.files())).await.expect("finalized");
    let output = rig.output();
    let expected = ["image.SHA256SUMS", "image.manifest.json", "image.qcow2", "image.raw.zst", "image.vmdk"];
    assert_eq!(names(&output), expected);
    let base = std::fs::read(rig.base()).expect("read");
    for format in ["qcow2", "vmdk"] {
        let image = output.join(format!("image.{format}"));
        qemu_img_agrees(&image, format);
        assert!(sectors(&image, format).starts_with(&base), "{format}");
    }
    let info = Command::new("qemu-img")
        .args(["info", "--output=json"])
        .arg(output.join("image.qcow2"))
        .output()
        .expect("run");
    assert!(String::from_utf8_lossy(&info.stdout).contains("\"compression-type\": \"zstd\""));
    let packed = std::fs::read(output.join("image.raw.zst")).expect("read");
    let unpacked = zstd::decode_all(packed.as_slice()).expect("a zstd file");
    assert!(unpacked.len() == 2 << 20 && unpacked.starts_with(&base));
    assert!(packed.len() < 20_000, "{}", packed.len());
    let sums = Command::new("sha256sum")
        .args(["--check", "--quiet", "image.SHA256SUMS"])
        .current_dir(&output)
        .status()
        .expect("run");
    assert!(sums.success());
}

/// Packer's `qemu` builder ends with `qemu-img convert -O qcow2 OVERLAY IMAGE` of the same disk.
#[tokio::test]
async fn an_image_takes_no_more_room_than_packers_of_the_same_disk() {
    let Some((rig, at, machine)) = ready().await else { return };
    let overlay = rig.hypervisor.work_directory(&at).join(DISK_FILE);
    let theirs = rig.base().with_file_name("packer.qcow2");
    let packer = Command::new("qemu-img").args(["convert", "-O", "qcow2"]).args([&overlay, &theirs]).status();
    assert!(packer.expect("run").success());
    finalize(&rig, &machine, &rig.files()).await.expect("finalized");
    let files = [theirs, rig.output().join("image.qcow2")];
    let [theirs, ours] = files.map(|image| image.metadata().expect("there").len());
    assert!(ours <= theirs, "{ours} {theirs}");
}

#[tokio::test]
async fn images_that_are_there_are_left_alone_unless_they_shall_be_replaced() {
    let Some((rig, at, machine)) = ready().await else { return };
    let output = rig.output();
    std::fs::create_dir_all(&output).expect("made");
    std::fs::write(output.join("image.vmdk"), "years of work").expect("written");
    let error = finalize(&rig, &machine, &rig.files()).await.expect_err("taken");
    assert!(error.to_string().contains("it is there already"), "{error}");
    assert_eq!(names(&output), ["image.vmdk"]);
    assert_eq!(std::fs::read(output.join("image.vmdk")).expect("there"), b"years of work");
    let seen = rig.hypervisor.standing(&at, &rig.mark.nonce).await.expect("asked");
    assert!(matches!(seen, Standing::Ours { .. }), "{seen:?}");

    finalize(&rig, &machine, &replacing(rig.files())).await.expect("replaced");
    qemu_img_agrees(&output.join("image.vmdk"), "vmdk");
}

#[tokio::test]
async fn a_set_that_is_replaced_leaves_nothing_of_itself() {
    let Some((rig, _, machine)) = ready().await else { return };
    let output = rig.output();
    std::fs::create_dir_all(&output).expect("made");
    let outside = output.parent().expect("a parent").join("image.mine");
    let old = ["image.qcow2", "image-1.qcow2", "image.raw.zst", "image.efivars.fd", "notes.txt"];
    for file in old.iter().copied().chain(["image.notes"]) {
        std::fs::write(output.join(file), "old").expect("written");
    }
    std::fs::write(&outside, "mine").expect("written");
    let named = old.into_iter().chain(["image-9.vmdk", "../image.mine"]);
    let files: Vec<_> = named
        .map(|name| serde_json::json!({"name": name, "format": "raw", "size": 3, "sha256": "0".repeat(64)}))
        .collect();
    let manifest =
        serde_json::json!({"version": 1, "name": "image", "virtual-size": 3, "build": {}, "files": files});
    std::fs::write(output.join("image.manifest.json"), manifest.to_string()).expect("written");
    finalize(&rig, &machine, &replacing(rig.files())).await.expect("replaced");
    let expected = [
        "image.SHA256SUMS",
        "image.manifest.json",
        "image.notes",
        "image.qcow2",
        "image.raw",
        "image.vmdk",
        "notes.txt",
    ];
    assert_eq!(names(&output), expected);
    assert!(outside.exists());
}

#[tokio::test]
async fn a_name_that_is_taken_at_the_last_moment_is_not_overwritten_and_no_half_set_stays() {
    let Some((rig, _, _)) = ready().await else { return };
    let output = rig.output();
    std::fs::create_dir_all(&output).expect("made");
    let wanted = Wanted::new(&rig.files()).expect("fine");
    for ending in ["qcow2", "raw"] {
        std::fs::write(wanted.aside(ending, "n"), ending).expect("written");
    }
    std::fs::write(wanted.path("raw"), "somebody was faster").expect("written");
    let error = publish_all(&wanted, &["qcow2", "raw"].map(str::to_owned), "n").expect_err("taken");
    assert!(error.to_string().contains("it is there already"), "{error}");
    assert_eq!(std::fs::read(wanted.path("raw")).expect("there"), b"somebody was faster");
    assert!(!wanted.path("qcow2").exists(), "no half set");
}

#[tokio::test]
async fn a_disk_that_is_full_is_told_in_the_tools_words_and_no_file_has_a_final_name() {
    let Some((rig, at, machine)) = ready().await else { return };
    // A `qemu-img` that may write no more than 64 KiB: the nearest to a full disk that needs no root.
    let small = rig.script("small-qemu-img", "trap '' XFSZ; ulimit -f 64; exec qemu-img \"$@\"");
    let hypervisor = QemuHypervisor::new(crate::QemuTarget { image_tool: small, ..rig.target() });
    let there = hypervisor.machine(&at);
    let task = there.submit_finalize(&rig.files()).await.expect("submitted");
    let error = hypervisor.wait(&task).await.expect_err("no room");
    let text = error.to_string();
    assert!(text.contains("image.qcow2 could not be written") && text.contains("File too large"), "{text}");
    assert_eq!(names(&rig.output()), [""; 0], "what was half written does not fill the disk any longer");
    machine.destroy().await.expect("removed");
}

/// As when a base is updated by night while a build from it goes on, or waits to be finished.
#[tokio::test]
async fn an_image_that_was_replaced_below_an_overlay_is_not_mixed_into_the_result() {
    let Some((rig, _at, machine)) = ready().await else { return };
    let (base, aside) = (rig.base(), rig.base().with_extension("new"));
    std::fs::copy(&base, &aside).expect("copied");
    std::fs::rename(&aside, &base).expect("replaced");
    let replaced = "base.raw has been replaced or changed since the VM was made from it";
    let task = machine.submit_finalize(&rig.files()).await.expect("submitted");
    let error = rig.hypervisor.wait(&task).await.expect_err("it is another");
    assert!(error.to_string().contains(replaced), "{error}");
    assert_eq!(names(&rig.output()), [""; 0]);
    let error = machine.submit_start().await.expect_err("nor is it started on the other");
    assert!(error.to_string().contains(replaced), "{error}");
    std::fs::remove_file(&base).expect("removed");
    let error = machine.submit_start().await.expect_err("it is gone");
    assert!(error.to_string().contains("can't be looked at; put it back"), "{error}");
    machine.destroy().await.expect("removed");
}
