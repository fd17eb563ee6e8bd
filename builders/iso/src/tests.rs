//! Images by `genisoimage`, with and without Rock Ridge, and broken ones.

use std::process::Command;

use super::*;

/// An image of some files; `None`, with the reason printed, where the tool is missing.
fn image(folder: &Path, arguments: &[&str]) -> Option<PathBuf> {
    let tree = folder.join("tree");
    std::fs::create_dir_all(tree.join("install.amd/gtk")).expect("made");
    std::fs::write(tree.join("install.amd/vmlinuz"), vec![7; 5000]).expect("written");
    std::fs::write(tree.join("install.amd/gtk/initrd.gz"), "an initrd").expect("written");
    let long = format!("{}.txt", "n".repeat(200));
    std::fs::write(tree.join(long), "long").expect("written");
    for number in 0..100 {
        std::fs::write(tree.join(format!("install.amd/file-{number}")), number.to_string()).expect("written");
    }
    let iso = folder.join("image.iso");
    let made =
        Command::new("genisoimage").arg("-quiet").args(arguments).arg("-o").arg(&iso).arg(&tree).output();
    match made {
        Ok(made) => {
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            Some(iso)
        }
        Err(error) => {
            println!("skipped: genisoimage can't be run: {error}");
            None
        }
    }
}

fn content(iso: &Path, path: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut iso = Iso::open(iso).map_err(|error| error.to_string())?;
    iso.check(path).map_err(|error| error.to_string())?;
    let length = iso.extract(path, &mut bytes).map_err(|error| error.to_string())?;
    assert_eq!(length, bytes.len() as u64);
    Ok(bytes)
}

#[test]
fn files_are_found_by_their_rock_ridge_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(iso) = image(folder.path(), &["-R", "-V", "TEST"]) else { return };
    assert_eq!(content(&iso, "/install.amd/vmlinuz"), Ok(vec![7; 5000]));
    assert_eq!(content(&iso, "install.amd//gtk/initrd.gz"), Ok(b"an initrd".to_vec()));
    // The directory has more than one sector.
    assert_eq!(content(&iso, "/install.amd/file-99"), Ok(b"99".to_vec()));
    // Its name goes on in an area of its own.
    assert_eq!(content(&iso, &format!("/{}.txt", "n".repeat(200))), Ok(b"long".to_vec()));
}

#[test]
fn the_label_and_the_files_of_a_folder_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(path) = image(folder.path(), &["-R", "-V", "Debian 12 amd64 n"]) else { return };
    let mut iso = Iso::open(&path).expect("an image");
    assert_eq!(iso.label(), "Debian 12 amd64 n");
    assert_eq!(iso.files("/install.amd/gtk").expect("a folder"), ["initrd.gz"]);
    assert_eq!(iso.files("/INSTALL.AMD").expect("a folder").len(), 101, "folders are none");
    let error = iso.files("/install.amd/vmlinuz").expect_err("a file").to_string();
    assert!(error.contains("has no file /install.amd/vmlinuz"), "{error}");
    let error = iso.files("/EFI/BOOT").expect_err("nothing").to_string();
    assert!(error.contains("in / it has: install.amd/"), "{error}");
}

#[test]
fn files_are_found_by_their_plain_names_in_whatever_case() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(iso) = image(folder.path(), &["-iso-level", "3"]) else { return };
    let found = ["/install.amd/vmlinuz", "/INSTALL.AMD/VMLINUZ"].map(|path| content(&iso, path));
    // Level 3 has no dot in the name of a folder.
    let plain = content(&iso, "/install_amd/vmlinuz");
    assert!(found.iter().chain([&plain]).any(|each| *each == Ok(vec![7; 5000])), "{found:?} {plain:?}");
}

#[test]
fn a_file_of_several_extents_is_put_together() {
    let mut iso = vec![0_u8; 24 * 2048];
    let mut put = |at: usize, bytes: &[u8]| iso[at..at + bytes.len()].copy_from_slice(bytes);
    let record = |block: u8, length: u16, flags: u8, name: &[u8]| {
        let mut bytes = vec![0_u8; 33 + name.len() + 1 - name.len() % 2];
        bytes[0] = u8::try_from(bytes.len()).expect("short");
        bytes[2] = block;
        bytes[10..12].copy_from_slice(&length.to_le_bytes());
        bytes[25] = flags;
        bytes[32] = u8::try_from(name.len()).expect("short");
        bytes[33..33 + name.len()].copy_from_slice(name);
        bytes
    };
    put(16 * 2048, b"\x01CD001");
    put(16 * 2048 + 156, &record(18, 2048, 2, b"\0"));
    put(17 * 2048, b"\xffCD001");
    let records = [record(18, 2048, 2, b"\0"), record(20, 3, 0x80, b"BIG.;1"), record(21, 4, 0, b"BIG.;1")];
    put(18 * 2048, &records.concat());
    put(20 * 2048, b"abc");
    put(21 * 2048, b"defg");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.iso");
    std::fs::write(&path, iso).expect("written");
    assert_eq!(content(&path, "/big"), Ok(b"abcdefg".to_vec()));
}

#[test]
fn what_is_not_there_is_told_with_what_is_and_a_broken_image_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(iso) = image(folder.path(), &["-R"]) else { return };
    let error = content(&iso, "/install.amd/gtk/vmlinuz").expect_err("not there");
    assert!(error.contains("in /install.amd/gtk it has: initrd.gz"), "{error}");
    let error = content(&iso, "/install/vmlinuz").expect_err("not there");
    assert!(error.contains("in / it has:") && error.contains("install.amd/"), "{error}");
    assert!(content(&iso, "/install.amd").is_err(), "a folder is no file");

    let broken = folder.path().join("broken.iso");
    std::fs::write(&broken, vec![0xff; 100_000]).expect("written");
    assert!(content(&broken, "/x").expect_err("no image").contains("is no ISO 9660 image"));
    std::fs::write(&broken, "").expect("written");
    assert!(content(&broken, "/x").expect_err("no image").contains("is no ISO 9660 image"));
    // Cut off and garbled images end in an error or in other content, never in a panic.
    let whole = std::fs::read(&iso).expect("read");
    for cut in [17 * 2048, 20 * 2048, 25 * 2048] {
        std::fs::write(&broken, &whole[..cut.min(whole.len())]).expect("written");
        let _ = content(&broken, "/install.amd/vmlinuz");
    }
    for seed in 0..200_usize {
        let mut garbled = whole.clone();
        for step in 0..40 {
            let at = 16 * 2048 + (seed * 7919 + step * 104_729) % (12 * 2048);
            if let Some(byte) = garbled.get_mut(at) {
                *byte = u8::try_from((seed * 31 + step * 17) % 256).expect("a byte");
            }
        }
        std::fs::write(&broken, garbled).expect("written");
        let _ = content(&broken, "/install.amd/vmlinuz");
    }
}
