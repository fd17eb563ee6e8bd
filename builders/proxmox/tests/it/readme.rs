//! The table of Packer's options names tests that are there.

use std::path::Path;

fn sources(folder: &Path, all: &mut String) {
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(&path).expect("read"));
        }
    }
}

/// Packer's options of `proxmox-iso` and `proxmox-clone`, of plugin 1.2, those inside of blocks too.
const OPTIONS: &str = "
    proxmox_url username password token insecure_skip_tls_verify node pool task_timeout
    vm_name vm_id template_name template_description tags skip_convert_to_template boot onboot qemu_additional_args
    memory ballooning_minimum cores sockets cpu_type numa os bios machine disable_kvm scsi_controller qemu_agent serials
    vga type memory rng0 source max_bytes period efi_config efi_storage_pool efi_format efi_type pre_enrolled_keys efidisk
    tpm_config tpm_storage_pool tpm_version pci_devices host mapping device_id legacy_igd pcie mdev hide_rombar romfile
    sub_device_id sub_vendor_id vendor_id x_vga
    network_adapters model bridge vlan_tag mac_address firewall mtu packet_queues
    disks storage_pool disk_size format cache_mode discard ssd io_thread asyncio exclude_from_backup storage_pool_type
    cloud_init cloud_init_storage_pool cloud_init_disk_type cloud_init_disable_upgrade_packages
    boot_wait boot_command boot_key_interval boot_keygroup_interval http_directory http_content http_port_min
    http_port_max http_bind_address http_interface http_network_protocol vm_interface
    boot_iso additional_iso_files index device iso_file iso_url iso_urls iso_checksum iso_storage_pool iso_download_pve
    iso_target_path iso_target_extension unmount keep_cdrom_device cd_files cd_content cd_label
    clone_vm clone_vm_id full_clone nameserver searchdomain ipconfig ip gateway ip6 gateway6
";

#[test]
fn every_option_of_packers_builders_is_on_the_page() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(here.join("README.md")).expect("read");
    // The first cell of each row of a table is Packer's.
    let cells: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).collect();
    let named = |option: &str| cells.iter().any(|cell| cell.contains(&format!("`{option}`")));
    let missing: Vec<&str> = OPTIONS.split_whitespace().filter(|option| !named(option)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_row_names_a_test_or_says_what_is_missing() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(here.join("README.md")).expect("read");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.contains("| test |"));
    let mut seen = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let test = cells.last().copied().unwrap_or_default();
        let why = cells.iter().rev().nth(1).copied().unwrap_or_default();
        let refers = test.contains('`') || test.starts_with("that") || test == "the same";
        let reason = ["not there", "deprecated there", "not needed", "without effect"];
        assert!(refers || reason.iter().any(|words| why.contains(words)), "{row}");
        seen += 1;
    }
    assert!(seen > 60, "{seen} rows");
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(here.join("README.md")).expect("read");
    let read = |folders: &[&str]| {
        let mut all = String::new();
        folders.iter().for_each(|folder| sources(&here.join(folder), &mut all));
        all
    };
    let places = [
        ("P", read(&["tests/it"])),
        ("U", read(&["src", "../machine/src"])),
        ("I", read(&["../../tests/it"])),
        ("C", read(&["../../src/config/tests"])),
    ];
    let mut named = 0;
    for (place, text) in &places {
        for part in page.split(&format!("{place} `")).skip(1) {
            let name = part.split('`').next().unwrap_or_default();
            // What is no sentence is an option in a cell that ends with such a letter.
            if name.matches('_').count() < 4 {
                continue;
            }
            assert!(text.contains(&format!("fn {name}(")), "{place} `{name}` is not there");
            named += 1;
        }
    }
    assert!(named > 30, "{named} tests are named");
}
