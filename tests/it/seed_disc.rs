//! A real Debian on local QEMU takes its seed from a disc that forge made, without a network to forge, and over HTTP; with
//! addresses that it is told and that are leased.

use forge_lab::images;

use crate::support::local_site::LocalSite;

const PROFILE: &str = r#"schema = 1
name = "seeded"

[source]
image = "IMAGE"

[seed]
delivery = ["DELIVERY"]
hostname = "from-the-seed"
MORE
[access]
host-key = "seed"

[vm]
networks = [{ mac = "52:54:00:12:34:56" }]

[deadlines]
connect = "15m"

[[provision]]
name = "where the seed came from"
shell = ["hostname", "cloud-init query ds.seed_dir 2>/dev/null || true", "sudo blkid -t LABEL=cidata || true", "cloud-id", "ip -o address", "cat /etc/resolv.conf", "echo host keys: /etc/ssh/ssh_host_*"]
"#;

/// What a real Debian says that was built with its seed delivered in this way; `None` where no guest is wanted.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn debian(delivery: &str, more: &str) -> anyhow::Result<Option<String>> {
    if std::env::var_os("FORGE_LAB").is_none() {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
        return Ok(None);
    }
    let image = images::debian(&images::default_cache_root())?.disk;
    let site = LocalSite::new();
    let profile = PROFILE.replace("IMAGE", &image.display().to_string()).replace("DELIVERY", delivery);
    site.write("seeded.toml", &profile.replace("MORE", more));
    let said = site.succeeds(&["build", "seeded.toml"]);
    assert!(said.contains("| from-the-seed"), "the host name is the seed's: {said}");
    // forge logged in, so the guest showed the very key of the seed; cloud-init made no other.
    let keys = "host keys: /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key.pub\n";
    assert!(said.contains(keys), "{said}");
    let data = std::fs::read_to_string(site.path().join("output/seeded/latest/seed/user-data"))?;
    let private = data.lines().find(|line| line.contains("ed25519_private")).expect("it is there");
    // The lines of the key between its constant beginning and its end are stars.
    let lines: Vec<&str> = private.split("\\n").collect();
    assert!(
        lines.len() > 4 && lines[2..lines.len() - 2].iter().all(|line| line.contains("***")),
        "{private}"
    );
    site.assert_nothing_left();
    Ok(Some(said))
}

/// The line of a guest's adapter with the address that QEMU's user network forwards to.
fn address(said: &str) -> &str {
    said.lines().find(|line| line.contains("inet 10.0.2.15/24")).unwrap_or_else(|| panic!("{said}"))
}

#[test]
fn debian_takes_its_seed_from_a_disc() -> anyhow::Result<()> {
    // Said instead of asked for.
    let fixed = "[seed.vars]\naddress = \"10.0.2.15/24\"\ngateway = \"10.0.2.2\"\nnameservers = [\"10.0.2.3\"]\n\
                 address6 = \"fec0::77/64\"\n";
    let Some(said) = debian("disc", fixed)? else { return Ok(()) };
    assert!(said.contains("LABEL=\"cidata\""), "the guest sees the disc: {said}");
    assert!(!address(&said).contains("dynamic"), "nobody leased it: {said}");
    assert!(said.contains("inet6 fec0::77/64"), "the IPv6 address too: {said}");
    assert!(!said.contains("opening the seed server"), "nothing is served: {said}");
    Ok(())
}

#[test]
fn debian_takes_its_seed_from_a_disc_and_its_address_by_dhcp() -> anyhow::Result<()> {
    let Some(said) = debian("disc", "")? else { return Ok(()) };
    assert!(said.contains("LABEL=\"cidata\""), "the guest sees the disc: {said}");
    assert!(address(&said).contains("dynamic"), "it was leased: {said}");
    assert!(!said.contains("opening the seed server"), "nothing is served: {said}");
    Ok(())
}

/// The address is on the kernel's line with the seed's: nobody leases the guest one before it asks for its seed.
#[test]
fn debian_takes_its_seed_by_http_with_a_static_address_of_its_kernel_s_line() -> anyhow::Result<()> {
    let more = r#"
[seed.vars]
address = "10.0.2.15/24"
gateway = "10.0.2.2"

[boot]
steps = [
  { wait-for = "Debian GNU/Linux", within = "10m" },
  { keys = "<home>" },
  { until = { regex = '\*Debian GNU/Linux *[^ \w(]*$' }, press = "<down>", within = "60s" },
  { keys = "e" },
  { wait-for = "vmlinuz", within = "5m", still-for = "300ms" },
  { keys = "<down><down><end>" },
  { type = ' {{ seed.arguments }}' },
  { keys = "<leftCtrlOn>x<leftCtrlOff>" },
]
"#;
    let Some(said) = debian("typed", more)? else { return Ok(()) };
    assert!(said.contains("opening the seed server") && said.contains("user-data"), "it is served: {said}");
    assert!(!said.contains("LABEL=\"cidata\""), "there is no disc: {said}");
    assert!(!address(&said).contains("dynamic"), "nobody leased it: {said}");
    Ok(())
}

/// The seed is served, and the disc is the profile's alone.
#[test]
fn a_tiny_guest_on_local_qemu_finds_a_disc_of_the_profile_s_own_beside_its_served_seed() -> anyhow::Result<()>
{
    if std::env::var_os("FORGE_LAB").is_none() {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
        return Ok(());
    }
    let image = images::tiny(&images::default_cache_root())?.disk;
    let site = LocalSite::new();
    site.write(
        "own.toml",
        &format!(
            "schema = 1\nname = \"own\"\n[source]\nimage = \"{}\"\n[seed]\ndelivery = [\"smbios\"]\n\
             disc = {{ label = \"OWN_LABEL\", files = {{ \"a/note.txt\" = {{ content = \"a note\" }} }} }}\n\
             [deadlines]\nconnect = \"15m\"\n\
             [[provision]]\nname = \"ask\"\nbecome = true\nshell = [\"for m in ahci sr_mod isofs; do modprobe $m || true; done\", \
             \"for n in 1 2 3 4 5 6 7 8 9; do findfs LABEL=OWN_LABEL && break; sleep 1; done\", \
             \"mount -o ro $(findfs LABEL=OWN_LABEL) /mnt\", \"echo found $(cat /mnt/a/note.txt)\"]\n",
            image.display()
        ),
    );
    let said = site.run(&["build", "own.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert!(said.text.contains("| found a note"), "{}", said.text);
    assert!(said.text.contains("opening the seed server"), "{}", said.text);
    Ok(())
}
