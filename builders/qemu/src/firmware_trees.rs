//! The firmware of the distributions, as their packages lay it out: which one is taken for UEFI, and which for Secure
//! Boot with enrolled keys.
//!
//! Debian's were read from its package `ovmf` (2022.11); the others' names, formats and features are those that the
//! sources of their packages name: `edk2-ovmf` of Fedora and of Arch, `qemu-ovmf-x86_64` of openSUSE, and QEMU's own
//! descriptors, which NixOS leaves beside QEMU.

use super::*;

/// A descriptor: its name, code, variables, their format, boards, features.
type Described = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

/// A distribution: folder of descriptors, descriptors, further files that no descriptor names.
struct Tree {
    name: &'static str,
    folder: &'static str,
    described: &'static [Described],
    files: &'static [&'static str],
    /// The code that a machine without and with enrolled keys takes on q35, and without them on i440fx.
    expected: [Option<&'static str>; 3],
}

const Q35: &[&str] = &["pc-q35-*"];
const BOTH: &[&str] = &["pc-i440fx-*", "pc-q35-*"];
const USUAL: &str = "usr/share/qemu/firmware";
const ENROLLED: &[&str] =
    &["acpi-s3", "amd-sev", "enrolled-keys", "requires-smm", "secure-boot", "verbose-dynamic"];
const SECURE_ONLY: &[&str] = &["acpi-s3", "amd-sev", "requires-smm", "secure-boot", "verbose-dynamic"];
const NEITHER: &[&str] = &["acpi-s3", "amd-sev", "verbose-dynamic"];

const TREES: &[Tree] = &[
    Tree {
        name: "Debian, Ubuntu",
        folder: USUAL,
        described: &[
            (
                "40-edk2-x86_64-secure-enrolled.json",
                "usr/share/OVMF/OVMF_CODE_4M.ms.fd",
                "usr/share/OVMF/OVMF_VARS_4M.ms.fd",
                "raw",
                Q35,
                ENROLLED,
            ),
            (
                "50-edk2-x86_64-secure.json",
                "usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
                "usr/share/OVMF/OVMF_VARS_4M.fd",
                "raw",
                Q35,
                SECURE_ONLY,
            ),
            (
                "60-edk2-x86_64.json",
                "usr/share/OVMF/OVMF_CODE_4M.fd",
                "usr/share/OVMF/OVMF_VARS_4M.fd",
                "raw",
                BOTH,
                NEITHER,
            ),
        ],
        files: &[],
        expected: [
            Some("usr/share/OVMF/OVMF_CODE_4M.fd"),
            Some("usr/share/OVMF/OVMF_CODE_4M.ms.fd"),
            Some("usr/share/OVMF/OVMF_CODE_4M.fd"),
        ],
    },
    Tree {
        name: "Fedora, Rocky",
        folder: USUAL,
        described: &[
            (
                "30-edk2-ovmf-4m-qcow2-x64-sb-enrolled.json",
                "usr/share/edk2/ovmf/OVMF_CODE_4M.secboot.qcow2",
                "usr/share/edk2/ovmf/OVMF_VARS_4M.secboot.qcow2",
                "qcow2",
                Q35,
                ENROLLED,
            ),
            (
                "40-edk2-ovmf-4m-qcow2-x64-sb.json",
                "usr/share/edk2/ovmf/OVMF_CODE_4M.secboot.qcow2",
                "usr/share/edk2/ovmf/OVMF_VARS_4M.qcow2",
                "qcow2",
                Q35,
                SECURE_ONLY,
            ),
            (
                "50-edk2-ovmf-4m-qcow2-x64-nosb.json",
                "usr/share/edk2/ovmf/OVMF_CODE_4M.qcow2",
                "usr/share/edk2/ovmf/OVMF_VARS_4M.qcow2",
                "qcow2",
                BOTH,
                NEITHER,
            ),
            (
                "60-edk2-ovmf-x64-amdsev.json",
                "usr/share/edk2/ovmf/OVMF.amdsev.fd",
                "usr/share/edk2/ovmf/OVMF_VARS_4M.qcow2",
                "raw",
                Q35,
                &["amd-sev", "amd-sev-es", "amd-sev-snp", "verbose-dynamic"],
            ),
        ],
        files: &["usr/share/edk2/ovmf/OVMF_CODE.fd", "usr/share/edk2/ovmf/OVMF_VARS.fd"],
        expected: [
            Some("usr/share/edk2/ovmf/OVMF_CODE_4M.qcow2"),
            Some("usr/share/edk2/ovmf/OVMF_CODE_4M.secboot.qcow2"),
            Some("usr/share/edk2/ovmf/OVMF_CODE_4M.qcow2"),
        ],
    },
    Tree {
        name: "Arch: it enrols no keys",
        folder: USUAL,
        described: &[
            (
                "50-edk2-ovmf-x86_64-secure-4m.json",
                "usr/share/edk2/x64/OVMF_CODE.secboot.4m.fd",
                "usr/share/edk2/x64/OVMF_VARS.4m.fd",
                "raw",
                Q35,
                SECURE_ONLY,
            ),
            (
                "60-edk2-ovmf-x86_64-4m.json",
                "usr/share/edk2/x64/OVMF_CODE.4m.fd",
                "usr/share/edk2/x64/OVMF_VARS.4m.fd",
                "raw",
                BOTH,
                NEITHER,
            ),
        ],
        files: &[],
        expected: [
            Some("usr/share/edk2/x64/OVMF_CODE.4m.fd"),
            None,
            Some("usr/share/edk2/x64/OVMF_CODE.4m.fd"),
        ],
    },
    Tree {
        name: "openSUSE",
        folder: USUAL,
        described: &[
            (
                "50-ovmf-x86_64-smm-ms.json",
                "usr/share/qemu/ovmf-x86_64-smm-ms-code.bin",
                "usr/share/qemu/ovmf-x86_64-smm-ms-vars.bin",
                "raw",
                Q35,
                ENROLLED,
            ),
            (
                "60-ovmf-x86_64.json",
                "usr/share/qemu/ovmf-x86_64-code.bin",
                "usr/share/qemu/ovmf-x86_64-vars.bin",
                "raw",
                BOTH,
                NEITHER,
            ),
        ],
        files: &["usr/share/qemu/ovmf-x86_64-4m-code.bin", "usr/share/qemu/ovmf-x86_64-4m-vars.bin"],
        expected: [
            Some("usr/share/qemu/ovmf-x86_64-code.bin"),
            Some("usr/share/qemu/ovmf-x86_64-smm-ms-code.bin"),
            Some("usr/share/qemu/ovmf-x86_64-code.bin"),
        ],
    },
    Tree {
        name: "NixOS: QEMU's own, in its store",
        folder: "nix/store/0abc-qemu-10.0/share/qemu/firmware",
        described: &[
            (
                "50-edk2-x86_64-secure.json",
                "nix/store/0abc-qemu-10.0/share/qemu/edk2-x86_64-secure-code.fd",
                "nix/store/0abc-qemu-10.0/share/qemu/edk2-i386-vars.fd",
                "raw",
                Q35,
                SECURE_ONLY,
            ),
            (
                "60-edk2-x86_64.json",
                "nix/store/0abc-qemu-10.0/share/qemu/edk2-x86_64-code.fd",
                "nix/store/0abc-qemu-10.0/share/qemu/edk2-i386-vars.fd",
                "raw",
                BOTH,
                NEITHER,
            ),
        ],
        files: &["run/libvirt/nix-ovmf/OVMF_CODE.ms.fd", "run/libvirt/nix-ovmf/OVMF_VARS.ms.fd"],
        expected: [
            Some("nix/store/0abc-qemu-10.0/share/qemu/edk2-x86_64-code.fd"),
            Some("run/libvirt/nix-ovmf/OVMF_CODE.ms.fd"),
            Some("nix/store/0abc-qemu-10.0/share/qemu/edk2-x86_64-code.fd"),
        ],
    },
    Tree {
        name: "Debian 11, whose descriptors are gone",
        folder: USUAL,
        described: &[],
        files: &["usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"],
        expected: [Some("usr/share/OVMF/OVMF_CODE.fd"), None, Some("usr/share/OVMF/OVMF_CODE.fd")],
    },
];

fn put(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
    std::fs::write(path, text).expect("written");
}

#[test]
fn the_firmware_of_each_distribution_is_found_where_its_packages_put_it() {
    for tree in TREES {
        let root = tempfile::tempdir().expect("a folder");
        for (name, code, variables, format, machines, features) in tree.described {
            let text = serde_json::json!({
                "description": "UEFI firmware for x86_64",
                "interface-types": ["uefi"],
                "mapping": {
                    "device": "flash",
                    "mode": "split",
                    "executable": { "filename": root.path().join(code), "format": format },
                    "nvram-template": { "filename": root.path().join(variables), "format": format },
                },
                "targets": [{ "architecture": "x86_64", "machines": machines }],
                "features": features,
                "tags": [],
            });
            put(root.path(), &format!("{}/{name}", tree.folder), &text.to_string());
            put(root.path(), code, "code");
            put(root.path(), variables, "variables");
        }
        for file in tree.files {
            put(root.path(), file, "a file");
        }
        let found = Firmwares::find_in(&[root.path().join(tree.folder)], root.path());
        let code = |keys, chipset| {
            let chosen = found.choose(keys, chipset)?;
            assert_eq!(chosen.secure, keys, "{}: {chosen:?}", tree.name);
            Some(chosen.code.strip_prefix(root.path()).expect("below it").to_str().expect("text").to_owned())
        };
        let got = [code(false, Chipset::Q35), code(true, Chipset::Q35), code(false, Chipset::I440fx)];
        assert_eq!(got.each_ref().map(Option::as_deref), tree.expected, "{}", tree.name);
        assert_eq!(code(true, Chipset::I440fx), None, "{}: Secure Boot needs q35", tree.name);
    }
}
