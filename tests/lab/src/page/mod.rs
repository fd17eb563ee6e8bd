//! The page to look at: `https://127.0.0.1:PORT/` shows nodes, VMs with their screens, tasks, and the calls of the last
//! minutes. A real server has its web interface there.
//!
//! It asks for no login, so it is shown to this machine only. Looking at it leaves no trace in the log of calls.

mod html;
mod rows;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use forge_qemu::qmp::ScreenshotFormat;
use sha2::{Digest as _, Sha256};

use crate::cluster::Cluster;
use crate::state::Power;

/// What a browser gets.
#[derive(Debug)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub kind: &'static str,
    /// The body.
    pub bytes: Bytes,
    /// What tells this body from others, for what is asked for again and again.
    pub tag: Option<String>,
}

impl Page {
    fn new(kind: &'static str, bytes: impl Into<Bytes>) -> Self {
        Page { status: 200, kind, bytes: bytes.into(), tag: None }
    }

    fn text(status: u16, text: &'static str) -> Self {
        Page { status, kind: "text/plain;charset=UTF-8", bytes: text.into(), tag: None }
    }
}

/// Whether a path is the page's.
pub fn is_page(path: &str) -> bool {
    path == "/" || path.starts_with("/lab/")
}

/// Answers a path of the page. `known` is the tag of what the browser has.
pub async fn get(cluster: &Arc<Cluster>, path: &str, peer: IpAddr, known: Option<&str>) -> Page {
    if !peer.to_canonical().is_loopback() {
        return Page::text(403, "the lab's page is shown to its own machine only\n");
    }
    match path {
        "/" => Page::new("text/html;charset=UTF-8", html::document(cluster)),
        "/lab/now" => Page::new("text/html;charset=UTF-8", html::sections(cluster)),
        "/lab/page.css" => Page::new("text/css;charset=UTF-8", include_str!("page.css")),
        "/lab/page.js" => Page::new("text/javascript;charset=UTF-8", include_str!("page.js")),
        _ => match path.strip_prefix("/lab/screen/").and_then(|rest| rest.strip_suffix(".png")) {
            Some(vmid) => screen(cluster, vmid, known).await,
            None => Page::text(404, "there is no such page\n"),
        },
    }
}

/// A picture of a running VM's screen.
async fn screen(cluster: &Arc<Cluster>, vmid: &str, known: Option<&str>) -> Page {
    let process = vmid.parse().ok().and_then(|vmid: u32| match &cluster.state().vms.get(&vmid)?.power {
        Power::On(process) => Some(Arc::clone(process)),
        Power::Off | Power::Flag { .. } => None,
    });
    let Some(process) = process else { return Page::text(404, "that VM has no screen now\n") };
    // Several may look at once: each has a file of its own.
    let file = cluster.run_dir.join(format!("screen-{}.png", crate::ids::uuid()));
    let dumped = process.qmp.screendump(&file, ScreenshotFormat::Png).await;
    let picture = tokio::fs::read(&file).await;
    // It is not there when QEMU has none to give.
    let _ = tokio::fs::remove_file(&file).await;
    match (dumped, picture) {
        (Ok(()), Ok(picture)) => {
            let hash = Sha256::digest(&picture);
            let tag: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            let tag = format!("\"{tag}\"");
            if known == Some(tag.as_str()) {
                return Page { status: 304, kind: "image/png", bytes: Bytes::new(), tag: Some(tag) };
            }
            Page { tag: Some(tag), ..Page::new("image/png", picture) }
        }
        _ => Page::text(404, "that VM has no screen now\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lab, LabConfig};

    #[tokio::test]
    async fn only_this_machine_may_look() {
        let lab = Lab::start(LabConfig { run_guests: false, ..LabConfig::default() }).await.expect("a lab");
        for (peer, status) in
            [("127.0.0.1", 200), ("::ffff:127.0.0.1", 200), ("::1", 200), ("192.0.2.7", 403)]
        {
            let page = get(lab.cluster(), "/", peer.parse().expect("an address"), None).await;
            assert_eq!(page.status, status, "{peer}");
        }
        let nobody = "127.0.0.1".parse().expect("an address");
        for path in ["/lab/screen/100.png", "/lab/screen/x.png", "/lab/../etc/passwd"] {
            assert_eq!(get(lab.cluster(), path, nobody, None).await.status, 404, "{path}");
        }
        lab.stop().await;
    }
}
