//! The page of this crate names every option of Packer's builder, and tests that are there.

#![expect(clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::path::Path;

/// Packer's options of its `qemu` builder, of plugin 1.1.
const OPTIONS: &str = "
    accelerator machine_type qemu_binary cpu_model cpus sockets cores threads memory firmware use_pflash
    efi_boot efi_firmware_code efi_firmware_vars efi_drop_efivars vtpm use_tpm1 tpm_device_type
    net_device net_bridge host_port_min host_port_max skip_nat_mapping qemuargs qemu_img_args qmp_enable qmp_socket_path
    disk_size disk_additional_size disk_interface disk_cache disk_discard disk_detect_zeroes format disk_image
    use_backing_file skip_resize_disk skip_compaction disk_compression output_directory vm_name
    iso_url iso_urls iso_checksum iso_target_path iso_target_extension iso_skip_cache
    cd_files cd_content cd_label cdrom_interface floppy_files floppy_dirs floppy_content floppy_label
    headless display use_default_display vga vnc_bind_address vnc_port_min vnc_port_max vnc_use_password vnc_password
    disable_vnc boot_command boot_steps boot_wait boot_key_interval http_directory http_content http_port_min http_port_max
    http_bind_address shutdown_command shutdown_timeout
";

fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(&path).expect("read"));
        }
    }
    all
}

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("read")
}

#[test]
fn every_option_of_packers_builder_is_on_the_page() {
    let page = page();
    let cells: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).collect();
    let named = |option: &str| cells.iter().any(|cell| cell.contains(&format!("`{option}`")));
    let missing: Vec<&str> = OPTIONS.split_whitespace().filter(|option| !named(option)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_row_names_a_test_or_says_that_there_is_nothing_to_test() {
    let mut seen = 0;
    for row in page().lines().filter(|line| line.starts_with("| ") && !line.ends_with("| shown by |")) {
        let test = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        assert!(test.contains('`') || test.contains("tests of") || test == "–", "{row}");
        // A dash is for what is not there, and says so.
        let excused = ["not there", "not needed", "nothing to set"];
        assert!(test != "–" || excused.iter().any(|words| row.contains(words)), "{row}");
        seen += 1;
    }
    assert!(seen > 40, "{seen} rows");
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (own, top) = (sources(&here.join("src")), sources(&here.join("../../tests/it")));
    let page = page();
    let mut words = page.split('`');
    let mut named = 0;
    // Between the ticks, and what follows them.
    while let (Some(_), Some(name)) = (words.next(), words.next()) {
        // Other words in ticks are options.
        let is_test =
            name.matches('_').count() >= 4 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_test {
            continue;
        }
        let after = page.split(&format!("`{name}`")).nth(1).unwrap_or_default();
        let at_the_top = after.starts_with(" (`tests/it`)");
        let text = if at_the_top { &top } else { &own };
        assert!(text.contains(&format!("fn {name}(")), "`{name}` is not there (at the top: {at_the_top})");
        named += 1;
    }
    assert!(named > 30, "{named} tests are named");
}
