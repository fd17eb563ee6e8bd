//! Looks on a stopped VM's disks for what may not be there, in files or not: it sees what the guest wrote, not what its
//! base image had before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use aho_corasick::AhoCorasick;
use forge_machine::{DiskFind, Forbidden, PortError};
use serde::Deserialize;

use crate::args::DISK_FILE;
use crate::digest::{Stop, Token};
use crate::drives::disk_file;
use crate::image::ImageTool;
use crate::workdir::WorkDir;

/// How much is read at a time.
const CHUNK: usize = 4 << 20;

/// A piece of a disk, as `qemu-img map` tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Extent {
    /// Where the guest sees it.
    start: u64,
    length: u64,
    /// How many images below the first one it lies.
    depth: u64,
    data: bool,
    /// Where it lies in its file; none where it is compressed, which nothing is that a guest has written.
    #[serde(default)]
    offset: Option<u64>,
}

/// Searches all disks of a VM; finds each kind once on each of them.
pub(crate) async fn search(
    tool: &ImageTool,
    dir: &WorkDir,
    texts: &[Forbidden],
) -> Result<Vec<DiskFind>, PortError> {
    let failed = |error: forge_machine::error::Cause| PortError::broken("the disks can't be searched", error);
    let mut finds = Vec::new();
    let disks = (1..).map(disk_file).take_while(|name| dir.file(name).exists());
    let stop = Stop::default();
    for name in std::iter::once(DISK_FILE.to_owned()).chain(disks) {
        let path = dir.file(&name);
        let extents = tool.map(&path, "qcow2").await.map_err(|error| failed(Box::new(error).into()))?;
        let (texts, token) = (texts.to_vec(), stop.token());
        let found = tokio::task::spawn_blocking(move || of_file(&path, &extents, &texts, &token));
        let found =
            found.await.map_err(|error| failed(error.into()))?.map_err(|error| failed(error.into()))?;
        finds.extend(found.into_iter().map(|(offset, kind)| DiskFind { disk: name.clone(), offset, kind }));
    }
    Ok(finds)
}

/// The forms of a text: its bytes, and the UTF-16 of either end.
fn forms(text: &str) -> [Vec<u8>; 3] {
    let units = || text.encode_utf16();
    [
        text.as_bytes().to_vec(),
        units().flat_map(u16::to_le_bytes).collect(),
        units().flat_map(u16::to_be_bytes).collect(),
    ]
}

fn of_file(
    path: &PathBuf,
    extents: &[Extent],
    texts: &[Forbidden],
    token: &Token,
) -> io::Result<Vec<(u64, &'static str)>> {
    let patterns: Vec<(Vec<u8>, &'static str)> =
        texts.iter().flat_map(|each| forms(&each.text).map(|form| (form, each.kind))).collect();
    let longest = patterns.iter().map(|(form, _)| form.len()).max().unwrap_or(0);
    let search = AhoCorasick::new(patterns.iter().map(|(form, _)| form)).map_err(io::Error::other)?;
    let file = File::open(path)?;
    let mut finds: Vec<(u64, &'static str)> = Vec::new();
    // The end of what was read before, where the guest sees no gap after it: a text may lie across.
    let (mut buffer, mut end): (Vec<u8>, u64) = (Vec::new(), 0);
    for extent in extents.iter().filter(|extent| extent.data && extent.depth == 0) {
        let Some(offset) = extent.offset else { continue };
        if extent.start != end {
            buffer.clear();
        }
        let mut done = 0;
        while done < extent.length {
            token.check()?;
            let kept = buffer.len();
            let count = usize::try_from(extent.length - done).unwrap_or(CHUNK).min(CHUNK);
            buffer.resize(kept + count, 0);
            read_at(&file, buffer.get_mut(kept..).unwrap_or_default(), offset + done)?;
            let begin = extent.start + done - kept as u64;
            for found in search.find_overlapping_iter(&buffer) {
                if let Some((_, kind)) = patterns.get(found.pattern().as_usize())
                    && !finds.iter().any(|(_, known)| *known == *kind)
                {
                    finds.push((begin + found.start() as u64, *kind));
                }
            }
            buffer.drain(..buffer.len().saturating_sub(longest.saturating_sub(1)));
            done += count as u64;
        }
        end = extent.start + extent.length;
    }
    Ok(finds)
}

/// Reads all of it; an image's last cluster may be cut, and holds zeros behind its end.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64)? {
            0 => {
                rest.fill(0);
                break;
            }
            count => done += count,
        }
    }
    Ok(())
}

/// The extents that `qemu-img map` printed.
pub(crate) fn extents(output: &[u8]) -> serde_json::Result<Vec<Extent>> {
    serde_json::from_slice(output)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn forbidden(text: &str, kind: &'static str) -> Forbidden {
        Forbidden { text: text.into(), kind }
    }

    fn qemu_io(image: &Path, command: &str) -> bool {
        let output =
            std::process::Command::new("qemu-io").args(["-f", "qcow2", "-c", command]).arg(image).output();
        output.is_ok_and(|output| output.status.success())
    }

    #[tokio::test]
    async fn what_a_guest_wrote_is_found_wherever_it_lies_and_what_its_base_had_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let (base, image) = (dir.path().join("base.raw"), dir.path().join("disk.qcow2"));
        let mut old = vec![0_u8; 32 << 20];
        old[5000..5000 + 14].copy_from_slice(b"the old secret");
        std::fs::write(&base, old).expect("written");
        let tool = ImageTool::default();
        if tool.create_overlay(&image, &base, "raw", None).await.is_err() {
            eprintln!("skipped: qemu-img is not there");
            return;
        }
        // Across the border of two clusters that were written apart from each other, so that they lie apart too.
        let border = 10 << 20;
        let text = dir.path().join("text");
        let mut cluster = vec![b'.'; 128 << 10];
        cluster[(64 << 10) - 7..(64 << 10) + 8].copy_from_slice(b"the new secret!");
        std::fs::write(&text, &cluster[64 << 10..]).expect("written");
        let second = format!("write -s {} {} 64k", text.display(), border);
        if !qemu_io(&image, &second) {
            eprintln!("skipped: qemu-io is not there");
            return;
        }
        std::fs::write(&text, &cluster[..64 << 10]).expect("written");
        assert!(qemu_io(&image, "write 20M 64k"), "another one between them");
        assert!(qemu_io(&image, &format!("write -s {} {} 64k", text.display(), border - (64 << 10))));
        let wide: Vec<u8> = "a wide one here".encode_utf16().flat_map(u16::to_le_bytes).collect();
        std::fs::write(&text, [wide, vec![0; 70_000]].concat()).expect("written");
        assert!(qemu_io(&image, &format!("write -s {} 31M 64k", text.display())));

        let extents = tool.map(&image, "qcow2").await.expect("a map");
        let texts = [
            forbidden("the old secret", "old"),
            forbidden("the new secret!", "new"),
            forbidden("a wide one here", "wide"),
            forbidden("not there at all", "none"),
        ];
        let mut finds = of_file(&image, &extents, &texts, &Stop::default().token()).expect("searched");
        finds.sort_unstable();
        assert_eq!(finds, [(border - 7, "new"), (31 << 20, "wide")]);
    }
}
