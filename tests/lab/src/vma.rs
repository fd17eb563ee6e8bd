//! VMA, the format of Proxmox's backups: one stream with a VM's configuration and the contents of its disks.
//!
//! As pve-qemu's `vma.h`, `vma-writer.c` and `vma-reader.c` have it; not compared with a file of a real server. Numbers are
//! big endian but for the sizes of blobs. A disk is clusters of 64 KiB, of which blocks of zeros are left out.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

const HEADER: usize = 12_288;
const EXTENT_HEADER: usize = 512;
/// Where a header has the digest of itself: over all of it, with zeros in this place.
const DIGEST_OF_HEADER: usize = 32;
const DIGEST_OF_EXTENT: usize = 24;
const CONFIG_NAMES: usize = 2044;
const CONFIG_DATA: usize = CONFIG_NAMES + 4 * 256;
const DEVICES: usize = 4096;
const CLUSTERS_PER_EXTENT: usize = 59;
const BLOCK: usize = 4096;
const CLUSTER: usize = 16 * BLOCK;
const CONFIG_NAME: &str = "qemu-server.conf";

/// A disk that goes into a backup.
#[derive(Debug, Clone)]
pub struct Device {
    /// Its name there: `drive-scsi0`.
    pub name: String,
    /// Its contents, as they are.
    pub file: PathBuf,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// The VM's configuration file.
    pub config: String,
    /// Name, size in bytes and SHA-256 of each disk.
    pub devices: Vec<(String, u64, String)>,
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn small(number: usize) -> io::Result<u32> {
    u32::try_from(number).map_err(|_too_large| wrong("it is too large for a VMA"))
}

fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    buffer[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Adds to the table of names and texts; gives where it stands there.
fn blob(table: &mut Vec<u8>, data: &[u8]) -> io::Result<u32> {
    let at = small(table.len())?;
    let size = u16::try_from(data.len()).map_err(|_too_large| wrong("a text is too long for a VMA"))?;
    table.extend(size.to_le_bytes());
    table.extend(data);
    Ok(at)
}

/// Writes a backup. `watch` hears how many bytes of the disks were read, and may end it.
///
/// # Errors
/// What can't be read or written.
pub fn write(
    out: &mut dyn Write,
    config: &str,
    devices: &[Device],
    ctime: i64,
    watch: &dyn Fn(u64) -> io::Result<()>,
) -> io::Result<()> {
    let uuid: [u8; 16] = rand::random();
    // The first byte belongs to nobody, so that 0 means nothing.
    let mut table = vec![0_u8];
    let name = blob(&mut table, format!("{CONFIG_NAME}\0").as_bytes())?;
    let data = blob(&mut table, config.as_bytes())?;
    let mut entries = Vec::new();
    for device in devices {
        let name = blob(&mut table, format!("{}\0", device.name).as_bytes())?;
        entries.push((name, device.file.metadata()?.len()));
    }
    let length = (HEADER + table.len()).next_multiple_of(512);
    let mut header = vec![0_u8; length];
    put(&mut header, 0, b"VMA\0");
    put(&mut header, 4, &1_u32.to_be_bytes());
    put(&mut header, 8, &uuid);
    put(&mut header, 24, &ctime.to_be_bytes());
    put(&mut header, 48, &small(HEADER)?.to_be_bytes());
    put(&mut header, 52, &small(table.len())?.to_be_bytes());
    put(&mut header, 56, &small(length)?.to_be_bytes());
    put(&mut header, CONFIG_NAMES, &name.to_be_bytes());
    put(&mut header, CONFIG_DATA, &data.to_be_bytes());
    for (index, (name, size)) in entries.iter().enumerate() {
        let at = DEVICES + 32 * (index + 1);
        put(&mut header, at, &name.to_be_bytes());
        put(&mut header, at + 8, &size.to_be_bytes());
    }
    put(&mut header, HEADER, &table);
    let digest = md5::compute(&header);
    put(&mut header, DIGEST_OF_HEADER, &digest.0);
    out.write_all(&header)?;

    let mut extent = Extent { uuid, infos: Vec::new(), blocks: Vec::new() };
    let mut seen = 0;
    for (index, device) in devices.iter().enumerate() {
        let mut file = File::open(&device.file)?;
        let mut cluster = vec![0_u8; CLUSTER];
        for number in 0_u32.. {
            let length = fill(&mut file, &mut cluster)?;
            if length == 0 {
                break;
            }
            cluster[length..].fill(0);
            seen += length as u64;
            watch(seen)?;
            extent.add(small(index + 1)?, number, &cluster);
            if extent.infos.len() == CLUSTERS_PER_EXTENT {
                extent.flush(out)?;
            }
        }
    }
    extent.flush(out)?;
    out.flush()
}

/// Clusters on their way out.
struct Extent {
    uuid: [u8; 16],
    infos: Vec<u64>,
    blocks: Vec<u8>,
}

impl Extent {
    fn add(&mut self, device: u32, number: u32, cluster: &[u8]) {
        let mut mask = 0_u64;
        for (index, block) in cluster.chunks(BLOCK).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                mask |= 1 << index;
                self.blocks.extend(block);
            }
        }
        self.infos.push((mask << 48) | (u64::from(device) << 32) | u64::from(number));
    }

    fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.infos.is_empty() {
            return Ok(());
        }
        let mut header = vec![0_u8; EXTENT_HEADER];
        put(&mut header, 0, b"VMAE");
        let count = u16::try_from(self.blocks.len() / BLOCK).map_err(|_| wrong("too many blocks"))?;
        put(&mut header, 6, &count.to_be_bytes());
        put(&mut header, 8, &self.uuid);
        for (index, info) in self.infos.iter().enumerate() {
            put(&mut header, 40 + 8 * index, &info.to_be_bytes());
        }
        let digest = md5::compute(&header);
        put(&mut header, DIGEST_OF_EXTENT, &digest.0);
        out.write_all(&header)?;
        out.write_all(&self.blocks)?;
        self.infos.clear();
        self.blocks.clear();
        Ok(())
    }
}

/// Reads until the buffer is full or nothing more comes; gives how much it was.
fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..])? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

fn whole(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_too_large| wrong("a number in it is too large"))
}

/// The head of a backup: its configuration, and name and size of each disk by its number.
struct Head {
    uuid: Vec<u8>,
    config: String,
    devices: Vec<(u64, String, u64)>,
}

fn check(header: &mut [u8], at: usize) -> io::Result<()> {
    let told = header[at..at + 16].to_vec();
    header[at..at + 16].fill(0);
    if md5::compute(&*header).0[..] == told[..] {
        return Ok(());
    }
    Err(wrong("a header does not have the digest that it tells"))
}

fn head(input: &mut dyn Read) -> io::Result<Head> {
    let mut header = vec![0_u8; HEADER];
    input.read_exact(&mut header)?;
    if header[..4] != *b"VMA\0" || number(&header, 4, 4) != 1 {
        return Err(wrong("it is no VMA"));
    }
    let length = whole(number(&header, 56, 4))?;
    header.resize(length.max(HEADER), 0);
    input.read_exact(&mut header[HEADER..])?;
    check(&mut header, DIGEST_OF_HEADER)?;
    let table = whole(number(&header, 48, 4))?;
    let text = |at: u64| -> io::Result<Vec<u8>> {
        let at = table + whole(at)?;
        let size = header.get(at..at + 2).ok_or_else(|| wrong("a text is missing"))?;
        let size = usize::from(u16::from_le_bytes([size[0], size[1]]));
        let text = header.get(at + 2..at + 2 + size).ok_or_else(|| wrong("a text is missing"))?;
        Ok(text.to_vec())
    };
    let named = |at: u64| -> io::Result<String> {
        let text = text(at)?;
        Ok(String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned())
    };
    if named(number(&header, CONFIG_NAMES, 4))? != CONFIG_NAME {
        return Err(wrong("it has no configuration"));
    }
    let config = String::from_utf8_lossy(&text(number(&header, CONFIG_DATA, 4))?).into_owned();
    let mut devices = Vec::new();
    for index in 1..256_usize {
        let at = DEVICES + 32 * index;
        let name = number(&header, at, 4);
        if name != 0 {
            devices.push((index as u64, named(name)?, number(&header, at + 8, 8)));
        }
    }
    Ok(Head { uuid: header[8..24].to_vec(), config, devices })
}

/// The configuration in a backup.
///
/// # Errors
/// It can't be read, or is none.
pub fn config(input: &mut dyn Read) -> io::Result<String> {
    Ok(head(input)?.config)
}

/// Reads a whole backup: each disk's clusters must come in their order, and none be missing.
///
/// # Errors
/// It can't be read, or is none.
pub fn read(input: &mut dyn Read) -> io::Result<Archive> {
    let head = head(input)?;
    let mut digests = vec![Sha256::new(); head.devices.len()];
    clusters(input, &head, &mut |disk, bytes| {
        digests[disk].update(bytes);
        Ok(())
    })?;
    let devices = head.devices.into_iter().zip(digests).map(|((_, name, size), digest)| {
        (name, size, digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    });
    Ok(Archive { config: head.config, devices: devices.collect() })
}

/// Writes the disks of a backup into files of a folder, as they are; gives its configuration, too.
///
/// # Errors
/// It can't be read, is none, or the files can't be written.
pub fn extract(input: &mut dyn Read, folder: &Path) -> io::Result<(String, Vec<Device>)> {
    let head = head(input)?;
    let mut devices = Vec::new();
    let mut files = Vec::new();
    for (id, name, _) in &head.devices {
        let file = folder.join(format!("device-{id}"));
        files.push(File::create(&file)?);
        devices.push(Device { name: name.clone(), file });
    }
    clusters(input, &head, &mut |disk, bytes| files[disk].write_all(bytes))?;
    Ok((head.config, devices))
}

/// Reads what follows the head, and gives each cluster with the place of its disk among the devices.
fn clusters(
    input: &mut dyn Read,
    head: &Head,
    take: &mut dyn FnMut(usize, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut left: Vec<u64> = head.devices.iter().map(|(_, _, size)| *size).collect();
    loop {
        let mut header = vec![0_u8; EXTENT_HEADER];
        match fill(input, &mut header)? {
            0 => break,
            EXTENT_HEADER if header[..4] == *b"VMAE" && header[8..24] == *head.uuid => {}
            _ => return Err(wrong("an extent is broken")),
        }
        check(&mut header, DIGEST_OF_EXTENT)?;
        for index in 0..CLUSTERS_PER_EXTENT {
            let info = number(&header, 40 + 8 * index, 8);
            if info == 0 {
                continue;
            }
            let (id, at) = ((info >> 32) & 0xff, (info & 0xffff_ffff) * CLUSTER as u64);
            let mut cluster = vec![0_u8; CLUSTER];
            for (index, block) in cluster.chunks_mut(BLOCK).enumerate() {
                if (info >> (48 + index)) & 1 == 1 {
                    input.read_exact(block)?;
                }
            }
            let disk = head.devices.iter().position(|device| device.0 == id);
            let disk = disk.ok_or_else(|| wrong("a cluster is of no disk"))?;
            if head.devices[disk].2 - left[disk] != at {
                return Err(wrong("a cluster is missing"));
            }
            let length = left[disk].min(CLUSTER as u64);
            take(disk, &cluster[..whole(length)?])?;
            left[disk] -= length;
        }
    }
    match left.iter().any(|left| *left > 0) {
        true => Err(wrong("it ends in the middle of a disk")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn what_is_written_is_read_back_and_zeros_take_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = vec![0_u8; 70 * CLUSTER + 1000];
        first[5] = 1;
        first[65 * CLUSTER + 3 * BLOCK] = 2;
        *first.last_mut().unwrap() = 3;
        let second = b"small".to_vec();
        let devices: Vec<Device> = [("drive-scsi0", &first), ("drive-efidisk0", &second)]
            .into_iter()
            .map(|(name, bytes)| {
                let file = folder.path().join(name);
                std::fs::write(&file, bytes).unwrap();
                Device { name: name.into(), file }
            })
            .collect();
        let mut out = Vec::new();
        write(&mut out, "name: web\n", &devices, 7, &|_| Ok(())).unwrap();
        assert!(out.len() < 60_000, "{}", out.len());
        let archive = read(&mut out.as_slice()).unwrap();
        assert_eq!(archive.config, "name: web\n");
        let size = |bytes: &[u8]| bytes.len() as u64;
        assert_eq!(
            archive.devices,
            [
                ("drive-scsi0".to_owned(), size(&first), digest(&first)),
                ("drive-efidisk0".to_owned(), size(&second), digest(&second))
            ]
        );
        assert_eq!(config(&mut out.as_slice()).unwrap(), "name: web\n");
        let into = tempfile::tempdir().unwrap();
        let (_, back) = extract(&mut out.as_slice(), into.path()).unwrap();
        let bytes: Vec<Vec<u8>> = back.iter().map(|device| std::fs::read(&device.file).unwrap()).collect();
        assert_eq!((back[0].name.as_str(), &bytes), ("drive-scsi0", &vec![first.clone(), second.clone()]));

        let cut = out.len() - BLOCK;
        assert!(read(&mut &out[..cut]).is_err(), "a part of it is told from all of it");
        out[600] ^= 1;
        assert!(config(&mut out.as_slice()).is_err(), "and so is a bit that is another");
        let stop = |_| Err(io::Error::other("enough"));
        assert!(write(&mut Vec::new(), "", &devices, 7, &stop).is_err());
    }
}
