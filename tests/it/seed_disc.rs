//! A real Debian takes its seed from a disc that forge made, on local QEMU: no served seed, no network to forge.

use std::process::Command;

use forge_lab::images;

use crate::support::local_site::LocalSite;

const PROFILE: &str = r#"schema = 1
name = "disc"

[source]
image = "IMAGE"

[seed]
delivery = ["disc"]
hostname = "from-the-disc"

# The address that QEMU's user network forwards to, said instead of asked for.
[seed.vars]
address = "10.0.2.15/24"
gateway = "10.0.2.2"
nameservers = ["10.0.2.3"]
address6 = "fec0::77/64"

[access]
host-key = "seed"

[vm]
networks = [{ mac = "52:54:00:12:34:56" }]

[deadlines]
connect = "15m"

[[provision]]
name = "where the seed came from"
shell = ["hostname", "cloud-init query ds.seed_dir 2>/dev/null || true", "sudo blkid -t LABEL=cidata", "cloud-id", "ip -o address", "cat /etc/resolv.conf", "echo host keys: /etc/ssh/ssh_host_*"]
"#;

#[test]
fn debian_takes_its_seed_from_a_disc() -> anyhow::Result<()> {
    if std::env::var_os("FORGE_LAB").is_none() {
        eprintln!("skipped: it needs a real guest; `cargo lab test` runs it");
        return Ok(());
    }
    let image = images::debian(&images::default_cache_root())?.disk;
    let folder = tempfile::Builder::new().prefix("forge-disc-").tempdir()?;
    std::fs::write(
        folder.path().join("forge.toml"),
        "[targets.local]\ntype = \"qemu\"\nimages = \"images\"\n",
    )?;
    let profile = PROFILE.replace("IMAGE", &image.display().to_string());
    std::fs::write(folder.path().join("disc.toml"), profile)?;
    let output = Command::new(env!("CARGO_BIN_EXE_forge"))
        .args(["--state-dir", "state", "build", "disc.toml"])
        .current_dir(folder.path())
        .output()?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("from-the-disc"), "the host name is the seed's: {said}");
    assert!(said.contains("LABEL=\"cidata\""), "the guest sees the disc: {said}");
    let address = said.lines().find(|line| line.contains("inet 10.0.2.15/24")).expect("the address is there");
    assert!(!address.contains("dynamic"), "nobody leased it: {address}");
    assert!(said.contains("inet6 fec0::77/64"), "the IPv6 address too: {said}");
    let evidence = folder.path().join("output/disc/latest");
    assert!(evidence.join("seed/user-data").is_file(), "the seed is in the evidence");
    assert!(!said.contains("opening the seed server"), "nothing is served: {said}");
    // forge logged in, so the guest showed the very key of the seed; cloud-init made no other.
    let keys = "host keys: /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key.pub\n";
    assert!(said.contains(keys), "{said}");
    let data = std::fs::read_to_string(evidence.join("seed/user-data"))?;
    let private = data.lines().find(|line| line.contains("ed25519_private")).expect("it is there");
    // The lines of the key between its constant beginning and its end are stars.
    let lines: Vec<&str> = private.split("\\n").collect();
    assert!(
        lines.len() > 4 && lines[2..lines.len() - 2].iter().all(|line| line.contains("***")),
        "{private}"
    );
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
