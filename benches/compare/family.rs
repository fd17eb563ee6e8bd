//! A builder's processes, from outside: the memory that they take, and whether a guest runs among them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

/// How often memory is looked at; reading it costs a process some time, so not as often as the marks.
const EVERY: Duration = Duration::from_millis(100);

/// A process and all below it.
#[derive(Debug)]
pub struct Family {
    head: u32,
    most: AtomicU64,
}

impl Family {
    /// That of a builder.
    pub fn of(head: u32) -> Self {
        Self { head, most: AtomicU64::new(0) }
    }

    /// Whether a guest runs below it whose SSH server is behind a port; what tries whether QEMU works is none.
    pub fn has_guest(&self, port: u16) -> bool {
        let forward = format!(":{port}-:22");
        self.members().iter().any(|path| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&forward)
        })
    }

    /// Watches the memory. Never ends, so that it can stand beside a build.
    pub async fn watch_memory(&self) -> std::convert::Infallible {
        loop {
            let own = self.members().into_iter().filter(|path| !name(path).starts_with("qemu-"));
            let all: u64 = own.filter_map(|path| proportional(&path)).sum();
            self.most.fetch_max(all, Ordering::Relaxed);
            sleep(EVERY).await;
        }
    }

    /// The most bytes that were seen: `Pss` of all processes but QEMU's.
    pub fn memory(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    fn members(&self) -> Vec<PathBuf> {
        let mut found = vec![Path::new("/proc").join(self.head.to_string())];
        let mut next = 0;
        while let Some(path) = found.get(next).cloned() {
            next += 1;
            let tasks = std::fs::read_dir(path.join("task")).into_iter().flatten().flatten();
            for task in tasks {
                let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
                found.extend(children.split_whitespace().map(|pid| Path::new("/proc").join(pid)));
            }
        }
        found
    }
}

fn name(process: &Path) -> String {
    std::fs::read_to_string(process.join("comm")).unwrap_or_default()
}

fn proportional(process: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(process.join("smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}
