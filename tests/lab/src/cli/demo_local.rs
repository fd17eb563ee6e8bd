//! `cargo lab demo --target local`: the same profile built by QEMU alone, without a Proxmox, into an image file, and the
//! image booted.
//!
//! The profile of the lab's demo clones a boot VM. Here it is taken with the disk of that VM as `source.image`, and without
//! the cloud-init drive, which only Proxmox has; everything else of it stays.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use toml::{Table, Value};

use super::demo::Build;
use super::site::TOKEN_ID;
use super::{output, trial};
use crate::{ImportVm, LEAST_PRIVILEGES_PVE9, Lab, LabConfig};

/// The site file.
const SITE: &str = "default-target = \"local\"\n\n[targets.local]\ntype = \"qemu\"\nimages = \"images\"\n";
/// The VM that holds the image as a template, to be tried.
const TEMPLATE: u32 = 9001;

/// Builds the profile from a disk, and boots what came out.
pub async fn run(mut build: Build, disk: &Path, tried: bool) -> anyhow::Result<()> {
    let text = fs::read_to_string(&build.profile)
        .with_context(|| format!("{} can't be read", build.profile.display()))?;
    let beside = build.profile.parent().context("the profile is in no folder")?;
    let profile = of_image(&text, beside, disk)
        .with_context(|| format!("{} is no profile for this", build.profile.display()))?;
    let name = build.profile.file_name().context("the profile has no name")?;
    build.profile = build.folder.join(name);
    fs::write(&build.profile, profile)?;
    fs::write(build.folder.join("forge.toml"), SITE)?;
    let images = build.folder.join("images");
    // What an earlier demo has made would be in the way.
    match fs::remove_dir_all(&images) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let said = build.run(None).await?;
    let image = made(&images)?;
    let size = image.metadata()?.len() as f64 / f64::from(1 << 20);
    output::print(&format!("\nimage     {} ({size:.0} MiB)", image.display()));
    said.iter().for_each(|line| output::print(line));
    if tried { boot(&image, &build.folder).await } else { Ok(()) }
}

/// The profile with a disk image as its source.
fn of_image(profile: &str, beside: &Path, disk: &Path) -> anyhow::Result<String> {
    let mut profile: Table = toml::from_str(profile)?;
    let text = |path: &Path| path.to_str().map(Value::from).context("a path is no UTF-8");
    if let Some(base) = profile.get("extends").and_then(Value::as_str) {
        let base = text(&beside.join(base))?;
        profile.insert("extends".to_owned(), base);
    }
    if let Some(Value::Table(vm)) = profile.get_mut("vm") {
        vm.remove("cloud-init");
    }
    let source = Table::from_iter([("image".to_owned(), text(disk)?)]);
    profile.insert("source".to_owned(), Value::Table(source));
    Ok(toml::to_string(&profile)?)
}

/// What the demo reads of a manifest.
#[derive(Deserialize)]
struct Manifest {
    files: Vec<ManifestFile>,
}

#[derive(Deserialize)]
struct ManifestFile {
    name: String,
}

/// The image that the only manifest of a folder names first.
fn made(images: &Path) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(images).with_context(|| format!("forge left no {}", images.display()))?;
    let names = entries.flatten().map(|entry| entry.path());
    let manifests: Vec<PathBuf> =
        names.filter(|path| path.to_string_lossy().ends_with(".manifest.json")).collect();
    let [manifest] = &manifests[..] else {
        bail!("{} should hold one manifest, and holds {}", images.display(), manifests.len());
    };
    let manifest: Manifest = serde_json::from_str(&fs::read_to_string(manifest)?)?;
    let first = manifest.files.first().context("the manifest names no file")?;
    Ok(images.join(&first.name))
}

/// Boots the image as its users would: a linked clone of it, with a cloud-init drive whose key must let in.
async fn boot(image: &Path, folder: &Path) -> anyhow::Result<()> {
    let lab = Lab::start(LabConfig::default()).await?;
    lab.import_vm(ImportVm {
        vmid: TEMPLATE,
        name: "tpl-of-the-image".to_owned(),
        disk: Some(image.to_path_buf()),
        cloudinit_drive: true,
        template: true,
        memory: 1024,
        cores: 2,
        ..ImportVm::default()
    })
    .await?;
    let secret = lab.add_token(TOKEN_ID, &[("/", LEAST_PRIVILEGES_PVE9)]);
    let result = trial::run(&lab, &secret, TEMPLATE, folder).await;
    lab.stop().await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_of_the_demo_keeps_all_but_its_source_and_what_only_proxmox_has() {
        let folder = crate::images::workspace_dir().join("os-profiles");
        let text = fs::read_to_string(folder.join("debian-12.toml")).unwrap();
        let (before, after): (Table, Table) = (
            toml::from_str(&text).unwrap(),
            toml::from_str(&of_image(&text, &folder, Path::new("/disks/debian.qcow2")).unwrap()).unwrap(),
        );
        assert_eq!(after["source"].to_string(), "{ image = \"/disks/debian.qcow2\" }");
        assert!(Path::new(after["extends"].as_str().unwrap()).is_file());
        assert_eq!((before["vm"]["cores"].as_integer(), after["vm"].get("cloud-init")), (Some(2), None));
        assert_eq!(after["vm"]["memory"], before["vm"]["memory"]);
        for key in ["name", "schema", "os", "template", "provision"] {
            assert_eq!(after[key], before[key], "{key}");
        }
    }

    #[test]
    fn the_image_is_what_the_only_manifest_names() {
        let folder = tempfile::tempdir().unwrap();
        assert!(made(folder.path()).unwrap_err().to_string().contains("holds 0"));
        let manifest = r#"{"schema": 1, "files": [{"name": "tpl.qcow2", "format": "qcow2"}]}"#;
        fs::write(folder.path().join("tpl.manifest.json"), manifest).unwrap();
        assert_eq!(made(folder.path()).unwrap(), folder.path().join("tpl.qcow2"));
    }
}
