//! A large upload beside curl's on the same lab: `cargo bench --bench upload -- --mib 4096 --rounds 3`; without a size 4 GiB,
//! or what the disk has room for.
//!
//! The lab, curl and forge's client are processes of their own, so that each one's peak memory is its own. forge's client
//! hashes what it sends, and the server compares it; curl sends the same digest along and hashes nothing. Then the same file
//! comes from a web server on loopback, into the cache and to the lab in one pass.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use forge::media::{Store, Unwatched};
use forge::ui;
use forge_lab::{LEAST_PRIVILEGES_PVE9, Lab, LabConfig};
use forge_machine::{Algorithm, Checksum, Growth, Location, Medium};
use forge_proxmox::api::client::Client;
use forge_proxmox::api::encode::Params;
use forge_proxmox::api::task::Upid;
use forge_proxmox::api::transfer::{Upload, sha256_of};
use forge_proxmox::{ProxmoxConfig, Secret, TlsChoice};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

const TOKEN: &str = "forge@pve!build";

/// How the lab is reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Site {
    url: String,
    fingerprint: String,
    secret: String,
}

/// What one upload took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Took {
    seconds: f64,
    peak_kib: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |name: &str, default: u64| -> anyhow::Result<u64> {
        match arguments.iter().position(|argument| argument == name) {
            Some(at) => Ok(arguments.get(at + 1).context("a number is missing")?.parse()?),
            None => Ok(default),
        }
    };
    match arguments.first().map(String::as_str) {
        Some("lab") => lab().await,
        Some("send") => send(&arguments).await,
        Some("through") => through(&arguments).await,
        _ => compare(number("--mib", fitting()?)?, number("--rounds", 3)?).await,
    }
}

/// 4 GiB, or as much as the disk has room for: the file, what the server has received of it, its copy of that, and the
/// client's cache.
fn fitting() -> anyhow::Result<u64> {
    let disk = nix::sys::statvfs::statvfs(&std::env::temp_dir())?;
    let free = (disk.blocks_available() * disk.fragment_size()) >> 20;
    let sizes = [4096, 2048, 1024, 512, 256, 64];
    let size =
        sizes.into_iter().find(|size| size * 4 + 1024 <= free).context("there is no room on the disk")?;
    if size < sizes[0] {
        ui::say(&format!("{free} MiB are free, so that {size} MiB are sent, not {}", sizes[0]));
    }
    Ok(size)
}

/// A lab until its standard input ends.
async fn lab() -> anyhow::Result<()> {
    let lab = Lab::start(LabConfig { run_guests: false, ..LabConfig::default() }).await?;
    let privileges = [LEAST_PRIVILEGES_PVE9, &["Datastore.AllocateTemplate", "Datastore.Allocate"]].concat();
    let secret = lab.add_token(TOKEN, &[("/", &privileges)]);
    let site = Site { url: lab.url(), fingerprint: lab.fingerprint().to_owned(), secret };
    ui::data(&format!("{}\n", serde_json::to_string(&site)?));
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    lab.stop().await;
    Ok(())
}

fn client(site: &Site) -> anyhow::Result<Client> {
    Ok(Client::new(&ProxmoxConfig {
        target: "lab".into(),
        url: site.url.clone(),
        more_urls: Vec::new(),
        proxy: forge_proxmox::ProxyChoice::None,
        token_id: TOKEN.into(),
        role: None,
        token_secret: Secret::new(&site.secret),
        tls: TlsChoice::Fingerprint(site.fingerprint.clone()),
        nodes: Vec::new(),
        disk_storage: None,
        iso_storage: None,
        bridge: None,
    })?)
}

/// One upload by forge's client: `send SITE FILE DIGEST`.
async fn send(arguments: &[String]) -> anyhow::Result<()> {
    let [_, site, file, digest] = arguments else { bail!("send SITE FILE DIGEST") };
    let client = client(&serde_json::from_str(site)?)?;
    let began = Instant::now();
    client.upload(&upload(Path::new(file), digest), &|_, _| {}).await?;
    took(began)
}

fn upload<'u>(file: &'u Path, digest: &'u str) -> Upload<'u> {
    let (node, storage, content, name) = ("pve", "local", "iso", "bench.iso");
    Upload { node, storage, content, name, file, digest: Some(("sha256", digest)), proved: false }
}

/// One upload of what is being downloaded meanwhile: `through SITE URL DIGEST FOLDER`.
async fn through(arguments: &[String]) -> anyhow::Result<()> {
    let [_, site, url, digest, folder] = arguments else { bail!("through SITE URL DIGEST FOLDER") };
    let client = client(&serde_json::from_str(site)?)?;
    let store = Store::new(folder.into());
    let checksum = Checksum::Digest { algorithm: Algorithm::Sha256, hex: digest.clone() };
    let medium = Medium { location: Location::Url(url.clone()), checksum };
    let growth = Growth::default();
    let mut follower = growth.follow();
    let began = Instant::now();
    let brought = async {
        let brought = store.bring_growing(&medium, &[], Some(&growth), &Unwatched).await;
        growth.end();
        anyhow::Ok(brought?)
    };
    let sent = async {
        let pass = follower.pass().await.context("nothing came")?;
        client.upload_growing(&upload(Path::new(url), digest), pass, &|_, _| {}).await?;
        anyhow::Ok(())
    };
    tokio::try_join!(brought, sent)?;
    took(began)
}

/// Serves one file to everybody; gives its address.
async fn serve(file: &Path) -> anyhow::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let file = file.to_owned();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let file = file.clone();
            tokio::spawn(async move {
                let _request = stream.read(&mut [0; 4096]).await?;
                let mut file = tokio::fs::File::open(file).await?;
                let length = file.metadata().await?.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                tokio::io::copy(&mut file, &mut stream).await
            });
        }
    });
    Ok(format!("http://{address}/bench.iso"))
}

/// Tells what it took since then, and how much memory this process had at most.
fn took(began: Instant) -> anyhow::Result<()> {
    let seconds = began.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak")?;
    let peak_kib = peak.trim().trim_end_matches(" kB").parse()?;
    ui::data(&serde_json::to_string(&Took { seconds, peak_kib })?);
    Ok(())
}

async fn curl(site: &Site, file: &Path, digest: &str) -> anyhow::Result<f64> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--insecure", "--output", "/dev/null"])
        .args(["--write-out", "%{time_total}", "--header", "Expect:", "--header"])
        .arg(format!("Authorization: PVEAPIToken={TOKEN}={}", site.secret))
        .args(["--form", "content=iso", "--form", "checksum-algorithm=sha256", "--form"])
        .arg(format!("checksum={digest}"))
        .arg("--form")
        .arg(format!("filename=@{};filename=bench.iso", file.display()))
        .arg(format!("{}/api2/json/nodes/pve/storage/local/upload", site.url))
        .output()
        .await
        .context("curl can't be run")?;
    ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// One upload by a process of forge's client.
async fn forge(way: &str, site: &Site, more: &[&str]) -> anyhow::Result<Took> {
    let output = Command::new(std::env::current_exe()?)
        .args([way, &serde_json::to_string(site)?])
        .args(more)
        .stderr(Stdio::inherit())
        .output()
        .await?;
    ensure!(output.status.success(), "the upload failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Waits until the lab has put the file in its place, and removes it there.
async fn settle(client: &Client) -> anyhow::Result<()> {
    loop {
        let tasks: Vec<serde_json::Value> = client.get("/cluster/tasks", &Params::new()).await?;
        let upid = tasks.iter().find_map(|task| {
            let copies = task["type"] == "imgcopy" && task.get("status").is_none();
            copies.then(|| task["upid"].as_str().and_then(Upid::parse)).flatten()
        });
        match upid {
            Some(upid) => client.wait_task(&upid).await?,
            None => break,
        }
    }
    client
        .delete("/nodes/pve/storage/local/content/local:iso%2Fbench.iso", &Params::new().with("delay", 20))
        .await?;
    Ok(())
}

async fn compare(mib: u64, rounds: u64) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("forge-upload-").tempdir()?;
    let file = folder.path().join("bench.iso");
    let mut writer = std::io::BufWriter::new(std::fs::File::create(&file)?);
    let mut piece: Vec<u8> =
        (0..1_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for number in 0..mib {
        piece[..8].copy_from_slice(&number.to_le_bytes());
        writer.write_all(&piece)?;
    }
    writer.into_inner()?.sync_all()?;
    let digest = sha256_of(&file).await?;
    let url = serve(&file).await?;

    let mut lab = Command::new(std::env::current_exe()?)
        .arg("lab")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(lab.stdout.take().context("no output")?).lines();
    let site: Site = serde_json::from_str(&lines.next_line().await?.context("the lab did not start")?)?;
    let client = client(&site)?;
    let mut rows = Vec::new();
    let (mut by_curl, mut by_forge) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let curl = curl(&site, &file, &digest).await?;
        settle(&client).await?;
        let by_client = forge("send", &site, &[&file.to_string_lossy(), &digest]).await?;
        settle(&client).await?;
        let cache = tempfile::Builder::new().prefix("forge-upload-cache-").tempdir()?;
        let onward = forge("through", &site, &[&url, &digest, &cache.path().to_string_lossy()]).await?;
        settle(&client).await?;
        cache.close()?;
        let rate = |seconds: f64| format!("{:.0}", mib as f64 / seconds);
        rows.push(vec![
            round.to_string(),
            rate(curl),
            rate(by_client.seconds),
            format!("{:.2}", curl / by_client.seconds),
            format!("{:.1}", by_client.peak_kib as f64 / 1024.0),
            rate(onward.seconds),
            format!("{:.1}", onward.peak_kib as f64 / 1024.0),
        ]);
        by_curl.push(curl);
        by_forge.push(by_client.seconds);
    }
    ui::data(&ui::table::table(
        &["ROUND", "CURL MIB/S", "FORGE MIB/S", "FORGE/CURL", "PEAK MIB", "FROM THE WEB MIB/S", "PEAK MIB"],
        &rows,
    ));
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    };
    ui::data(&format!("{mib} MiB; medians: forge/curl {:.2}", median(by_curl) / median(by_forge)));
    drop(lab.stdin.take());
    tokio::time::timeout(Duration::from_secs(30), lab.wait()).await??;
    Ok(())
}
