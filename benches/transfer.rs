//! Files into one guest, by forge and by the programs that people take: a large file beside `scp`, many small ones beside
//! `rsync`: `cargo bench --bench transfer -- --mib 1024 --files 10000 --rounds 3`.
//!
//! One build of the lab's Debian with QEMU alone: uploads of forge's, and the other programs as steps of this machine, with
//! the build's key, in turn. The guest has no rsync, so this machine's goes there with the libraries that it needs.

use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use forge::event::{Envelope, Event};
use forge::ui;
use forge_lab::images;

/// What both programs are told: the build's key, and no questions about a guest that is gone in a minute.
const SSH: &str = "-i \"$FORGE_GUEST_KEY_FILE\" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |name: &str, default: u64| -> anyhow::Result<u64> {
        match arguments.iter().position(|argument| argument == name) {
            Some(at) => Ok(arguments.get(at + 1).context("a number is missing")?.parse()?),
            None => Ok(default),
        }
    };
    let (mib, files, rounds) = (number("--mib", 1024)?, number("--files", 10_000)?, number("--rounds", 3)?);
    for program in ["scp", "rsync"] {
        let there = Command::new(program).arg("--version").stderr(std::process::Stdio::null()).output();
        ensure!(there.is_ok(), "{program} is not here (Debian: openssh-client, rsync)");
    }
    let folder = tempfile::Builder::new().prefix("forge-transfer-").tempdir()?;
    write_sources(folder.path(), mib, files)?;
    let image = images::debian(&images::default_cache_root())?.disk;
    std::fs::write(
        folder.path().join("forge.toml"),
        "[targets.local]\ntype = \"qemu\"\nimages = \"images\"\n",
    )?;
    std::fs::write(folder.path().join("bench.toml"), profile(&image, rounds))?;
    let output = Command::new(env!("CARGO_BIN_EXE_forge"))
        .args(["--state-dir", "state", "build", "bench.toml"])
        .current_dir(folder.path())
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let events = std::fs::read_to_string(folder.path().join("output/bench/latest/events.jsonl"))?;
    let mut took: Vec<(String, f64)> = Vec::new();
    for line in events.lines() {
        let envelope: Envelope = serde_json::from_str(line)?;
        if let Event::ProvisionerFinished { name, took_ms, .. } = envelope.event {
            took.push((name, Duration::from_millis(took_ms).as_secs_f64()));
        }
    }
    let median = |who: &str| -> anyhow::Result<f64> {
        let mut times: Vec<f64> =
            took.iter().filter(|(name, _)| name == who).map(|(_, time)| *time).collect();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().with_context(|| format!("`{who}` was not run"))
    };
    let mut rows = Vec::new();
    for (what, ours, theirs) in [
        (format!("one file of {mib} MiB"), "forge, one file", "scp"),
        (format!("{files} files in folders"), "forge, many files", "rsync"),
    ] {
        let (ours, peer) = (median(ours)?, median(theirs)?);
        rows.push(vec![
            what,
            format!("{ours:.1}"),
            format!("{peer:.1} {theirs}"),
            format!("{:.2}", peer / ours),
        ]);
    }
    ui::data(&ui::table::table(&["WHAT", "FORGE S", "PEER S", "PEER/FORGE"], &rows));
    Ok(())
}

/// A large file that does not get smaller by packing, and many small ones in folders of a hundred.
fn write_sources(folder: &Path, mib: u64, files: u64) -> anyhow::Result<()> {
    let mut random = std::fs::File::open("/dev/urandom")?.take(mib << 20);
    std::io::copy(&mut random, &mut std::fs::File::create(folder.join("large"))?)?;
    for number in 0..files {
        let at = folder.join(format!("many/{}", number / 100));
        if number.is_multiple_of(100) {
            std::fs::create_dir_all(&at)?;
        }
        let text = format!("{number}\n").repeat(usize::try_from(number % 300)? + 1);
        std::fs::write(at.join(number.to_string()), text)?;
    }
    Ok(())
}

fn profile(image: &Path, rounds: u64) -> String {
    let mut text = format!(
        "schema = 1\nname = \"bench\"\n[os]\nfamily = \"linux\"\n[source]\nimage = \"{}\"\n[vm]\ncores = 2\nmemory = 1024\n\
         [seed]\ndelivery = [\"smbios\"]\n[deadlines]\nconnect = \"15m\"\n",
        image.display()
    );
    let local = |name: &str, line: &str| {
        format!("\n[[provision]]\nname = \"{name}\"\nshell-local = ['''{line}''']\n")
    };
    let upload = |name: &str, from: &str, to: &str| {
        format!("\n[[provision]]\nname = \"{name}\"\nupload = \"{from}\"\ndestination = \"{to}\"\n")
    };
    let clean = "\n[[provision]]\nname = \"clean\"\nshell = [\"rm -rf large many\", \"sync\"]\n";
    text.push_str("\n[[provision]]\nname = \"settled\"\nshell = [\"cloud-init status --wait || true\"]\n");
    // The loader by its name, so that no library of the guest's is taken.
    text.push_str(&local(
        "rsync goes there",
        &format!(
            "mkdir -p tool; cp -L \"$(command -v rsync)\" $(ldd \"$(command -v rsync)\" | grep -o '/[^ ]*') tool/; \
             printf '#!/bin/sh\\nexec /tmp/tool/ld-linux-x86-64.so.2 --library-path /tmp/tool /tmp/tool/rsync \"$@\"\\n' >tool/run; \
             chmod 755 tool/run; scp -qr {SSH} -P \"$FORGE_GUEST_PORT\" tool \"$FORGE_GUEST_USER@$FORGE_GUEST_HOST:/tmp/\""
        ),
    ));
    for _ in 0..rounds {
        text.push_str(&upload("forge, one file", "large", "large"));
        text.push_str(clean);
        text.push_str(&local(
            "scp",
            &format!(
                "scp -q {SSH} -P \"$FORGE_GUEST_PORT\" large \"$FORGE_GUEST_USER@$FORGE_GUEST_HOST:large\""
            ),
        ));
        text.push_str(clean);
        text.push_str(&upload("forge, many files", "many", "."));
        text.push_str(clean);
        text.push_str(&local(
            "rsync",
            &format!(
                "rsync -a --rsync-path /tmp/tool/run -e \"ssh {} -p $FORGE_GUEST_PORT\" many \"$FORGE_GUEST_USER@$FORGE_GUEST_HOST:\"",
                SSH.replace('"', "'")
            ),
        ));
        text.push_str(clean);
    }
    text
}
