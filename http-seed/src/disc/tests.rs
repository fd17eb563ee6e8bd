//! The media, read back by other programs where they are installed, and by the kernel where it may mount.

use std::path::Path;
use std::process::{Command, Output};

use super::*;

fn sample() -> SeedSet {
    let mut set = SeedSet::default()
        .with("user-data", "#cloud-config\n{}\n")
        .with("meta-data", "instance-id: x\n")
        .with("Autounattend.xml", "<unattend/>".repeat(700))
        .with("empty", "");
    for name in ["scripts/setup.ps1", "scripts/deep/er/a_file_with_a_long_name.txt"] {
        set.add(name, format!("in {name}\n")).expect("a good name");
    }
    set
}

/// Whether a program is there; without it the test says so.
fn there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        crate::skipped(&format!("there is no {program} here"));
    }
    found
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().expect("it runs");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("image");
    std::fs::write(&file, bytes).expect("written");
    let name = file.to_str().expect("text").to_owned();
    (folder, name)
}

#[track_caller]
fn assert_equal(folder: &Path, set: &SeedSet) {
    for (name, file) in set.files() {
        let read = std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read, &file.bytes()[..], "{name}");
    }
}

/// Readers look for other file systems first, at 64 KiB for one, and busybox gives up where there is nothing to read.
#[test]
fn a_small_disc_is_long_enough_to_be_probed() {
    let disc = iso(CIDATA, &SeedSet::default().with("a", "b")).expect("made");
    assert!(disc.len() > 300 * 1024, "{}", disc.len());
    let told = u32::from_le_bytes(disc[16 * 2048 + 80..][..4].try_into().expect("four bytes"));
    assert_eq!(told as usize * 2048, disc.len(), "the size that it tells is its own");
}

#[test]
fn the_same_files_give_the_same_bytes() {
    assert_eq!(iso(CIDATA, &sample()), iso(CIDATA, &sample()));
    let flat = SeedSet::default().with("a", "b");
    assert_eq!(floppy("A", &flat), floppy("A", &flat));
    assert_ne!(iso(CIDATA, &flat), iso(OEMDRV, &flat));
}

#[test]
fn the_bytes_of_a_disc_and_of_a_floppy_are_those_of_every_other_machine() {
    use sha2::{Digest as _, Sha256};
    let sum =
        |bytes: Vec<u8>| Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let flat =
        SeedSet::default().with("user-data", "#cloud-config\n{}\n").with("meta-data", "instance-id: x\n");
    insta::assert_snapshot!(sum(iso(CIDATA, &sample()).expect("a disc")), @"263c09ee336169fa4361c70396912b25a9ca82c6f81321443744f0e38ba7c2f0");
    insta::assert_snapshot!(sum(floppy("SEED", &flat).expect("a floppy")), @"00593b0ca292733e272cb27989bd91d3cd152f02a7e673c385b81b01d1d1e240");
}

#[test]
fn xorriso_reads_the_disc_back_equal() {
    if !there("xorriso") {
        return;
    }
    let (folder, image) = written(&iso("cidata", &sample()).expect("a disc"));
    let out = folder.path().join("out");
    let to = out.to_str().expect("text");
    run("xorriso", &["-osirrox", "on", "-indev", &image, "-extract", "/", to]);
    assert_equal(&out, &sample());
    let toc = run("xorriso", &["-indev", &image, "-toc"]);
    let toc = String::from_utf8_lossy(&toc.stderr).into_owned() + &String::from_utf8_lossy(&toc.stdout);
    assert!(toc.contains("cidata"), "{toc}");
    assert!(!toc.contains("WARNING") && !toc.contains("SORRY"), "{toc}");
}

#[test]
fn isoinfo_sees_each_name_in_all_three_trees() {
    if !there("isoinfo") {
        return;
    }
    let (_folder, image) = written(&iso("OEMDRV", &sample()).expect("a disc"));
    for (tree, path) in [("-R", "/scripts/deep/er/a_file_with_a_long_name.txt"), ("-J", "/Autounattend.xml")]
    {
        let list = run("isoinfo", &["-i", &image, tree, "-f"]);
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        assert!(list.lines().any(|line| line.trim_end_matches(";1") == path), "{tree}: {list}");
        let name = if tree == "-J" { "/user-data;1" } else { path };
        let content = run("isoinfo", &["-i", &image, tree, "-x", name]);
        assert!(!content.stdout.is_empty(), "{tree}: {name} is read");
    }
    let plain = run("isoinfo", &["-i", &image, "-x", "/USER_DATA.;1"]);
    assert_eq!(plain.stdout, b"#cloud-config\n{}\n");
    let descriptor = run("isoinfo", &["-d", "-i", &image]);
    let descriptor = String::from_utf8_lossy(&descriptor.stdout).into_owned();
    assert!(descriptor.contains("Volume id: OEMDRV"), "{descriptor}");
    assert!(descriptor.contains("Joliet with UCS level 3 found"), "{descriptor}");
    assert!(descriptor.contains("Rock Ridge signatures version 1 found"), "{descriptor}");
}

#[test]
fn the_kernel_mounts_disc_and_floppy_and_reads_them_back_equal() {
    if !nix_is_root() || !there("mount") {
        eprintln!("skipped: mounting takes root");
        return;
    }
    for (image, set, options) in [
        (iso("cidata", &sample()).expect("a disc"), sample(), "loop,ro"),
        // Joliet alone, as Windows reads it.
        (iso("cidata", &sample()).expect("a disc"), sample(), "loop,ro,norock"),
        (floppy("SEED", &sample()).expect("a floppy"), sample(), "loop,ro"),
    ] {
        let (folder, file) = written(&image);
        let at = folder.path().join("mounted");
        std::fs::create_dir(&at).expect("a folder");
        let to = at.to_str().expect("text");
        // In a mount namespace of its own nothing stays mounted, whatever happens.
        let copy = folder.path().join("copy");
        let script = format!(
            "mount -o {options} '{file}' '{to}' && cp -r '{to}' '{}' && umount '{to}'",
            copy.display()
        );
        let output =
            Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().expect("it runs");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() && (words.contains("loop device") || words.contains("ermission")) {
            eprintln!("skipped: this machine mounts nothing: {words}");
            return;
        }
        if words.contains("unknown filesystem type") {
            eprintln!("skipped: {words}");
            continue;
        }
        assert!(output.status.success(), "{options}: {words}");
        assert_equal(&copy, &set);
    }
}

fn nix_is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

#[test]
fn mtools_and_fsck_read_the_floppy() {
    if !there("mcopy") || !there("fsck.fat") {
        return;
    }
    // A folder of more than one cluster, and names that are alike when they are short.
    let set = (0..40).fold(sample().with("Autounattend2.xml", "b"), |set, index| {
        set.with(format!("drivers/file-number-{index:03}.inf"), format!("{index}"))
    });
    let (folder, image) = written(&floppy("SEED", &set).expect("a floppy"));
    run("mcopy", &["-s", "-i", &image, "::*", folder.path().to_str().expect("text")]);
    assert_equal(folder.path(), &set);
    run("fsck.fat", &["-n", &image]);
}

#[test]
fn uefi_finds_the_loaders_of_a_disc_that_starts_a_machine() {
    if !there("xorriso") || !there("mcopy") || !there("fsck.fat") {
        return;
    }
    // As large as signed loaders are, in names of every case.
    let loaders = SeedSet::default()
        .with("EFI/BOOT/BOOTX64.EFI", vec![1; 960_000])
        .with("EFI/BOOT/grubx64.efi", vec![2; 4_200_001])
        .with("EFI/BOOT/grub.cfg", "boot\n");
    let disc = bootable("FORGE", &sample(), &loaders).expect("a disc");
    assert_eq!(bootable("FORGE", &sample(), &loaders).as_ref(), Ok(&disc), "the same bytes each time");
    let (folder, image) = written(&disc);
    let (out, read) = (folder.path().join("out"), folder.path().join("read"));
    run("xorriso", &["-osirrox", "on", "-indev", &image, "-extract", "/", out.to_str().expect("text")]);
    assert_equal(&out, &sample());
    let images = folder.path().join("boot");
    let to = images.to_str().expect("text");
    let told = run(
        "xorriso",
        &["-osirrox", "on", "-indev", &image, "-report_el_torito", "plain", "-extract_boot_images", to],
    );
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("UEFI  y   none"), "{told}");
    let part = std::fs::read_dir(&images).expect("a folder").filter_map(Result::ok).map(|each| each.path());
    let part = part
        .into_iter()
        .find(|path| path.to_string_lossy().ends_with("uefi.img"))
        .expect("what UEFI starts from");
    let part = part.to_str().expect("text");
    run("fsck.fat", &["-n", part]);
    std::fs::create_dir(&read).expect("a folder");
    run("mcopy", &["-s", "-i", part, "::*", read.to_str().expect("text")]);
    assert_equal(&read, &loaders);
    let large = SeedSet::default().with("EFI/BOOT/BOOTX64.EFI", vec![0; 17 << 20]);
    assert!(matches!(bootable("FORGE", &sample(), &large), Err(DiscError::TooBig { .. })));
}

#[test]
fn many_files_fill_more_than_one_sector_of_a_folder() {
    let set = (0..200).fold(SeedSet::default(), |set, index| {
        set.with(format!("file-number-{index:03}.txt"), format!("{index}"))
    });
    if there("xorriso") {
        let (folder, image) = written(&iso("MANY", &set).expect("a disc"));
        let out = folder.path().join("out");
        run("xorriso", &["-osirrox", "on", "-indev", &image, "-extract", "/", out.to_str().expect("text")]);
        assert_equal(&out, &set);
    }
    assert!(matches!(floppy("MANY", &set), Err(DiscError::Name { .. })), "the root holds 224 entries");
}

#[test]
fn what_fits_no_medium_is_refused() {
    let set = SeedSet::default().with("a", "b");
    for label in ["", "a b", "é", "seventeen-letters", "a/b"] {
        assert!(matches!(iso(label, &set), Err(DiscError::Label { .. })), "{label}");
    }
    assert!(matches!(floppy("twelve-chars", &set), Err(DiscError::Label { .. })));
    let long = SeedSet::default().with("x".repeat(65), "");
    assert!(matches!(iso("A", &long), Err(DiscError::Name { .. })));
    let deep = SeedSet::default().with("a/b/c/d/e/f/g/h/i", "");
    assert!(matches!(iso("A", &deep), Err(DiscError::Name { .. })));
    let both = SeedSet::default().with("a/b", "").with("a", "");
    assert!(matches!(iso("A", &both), Err(DiscError::Name { .. })), "a name can't be a file and a folder");
    let large = SeedSet::default().with("a", vec![0; 1_500_000]);
    assert!(matches!(floppy("A", &large), Err(DiscError::TooBig { .. })));
    for (names, why) in [
        (&["a", "a/b"][..], "a file and a folder would have the same name"),
        (&["a/b", "a/B"], "another name differs from it in the case of its letters alone"),
        (&["a/b", "A/c"], "another name differs from it in the case of its letters alone"),
        (&["a/b/c/d/e/f/g/h/i"], "folders go 8 deep"),
    ] {
        let set = names.iter().fold(SeedSet::default(), |set, name| set.with(*name, ""));
        let error = floppy("A", &set).expect_err("refused").to_string();
        assert!(error.ends_with(why), "{names:?}: {error}");
    }
    // The files alone would fit.
    let full = SeedSet::default().with("a/b", vec![0; 2847 * 512]);
    assert!(matches!(floppy("A", &full), Err(DiscError::TooBig { .. })));
}
