//! Which accelerator works on this machine, found out by using it.
//!
//! A `/dev/kvm` that opens proves nothing: on some machines (module `kvm_pvm`, seen on nested CI hosts) it creates
//! VMs in which 64-bit code never runs, or in which each instruction is emulated, so that a kernel does not get through
//! its own decompression. So a guest of some hundred bytes enters long mode, counts to twenty millions, takes an
//! exception, and reports back through QEMU's `isa-debug-exit`; only a guest that reports in time proves KVM. It is the
//! machine's whole firmware: `SeaBIOS` would take longer than all that it does, and under nested virtualisation much longer.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::process::{Launch, QemuProcess, find_program};

/// How long the probe guest may take. It needs 0.1 s even under TCG; the rest is for a busy machine. Where instructions
/// are emulated (observed on `kvm_pvm` of Linux 6.18) its loop takes 9 s.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// How much longer than a translated probe guest another one may take at least: to make a VM costs the same anywhere.
const PROBE_GRACE: Duration = Duration::from_millis(200);
/// What QEMU exits with when the guest reports 0x2a: `isa-debug-exit` makes it `(value << 1) | 1`.
const PROBE_EXIT: i32 = (0x2a << 1) | 1;
const CACHE_FILE: &str = "accelerator.json";

/// How QEMU runs the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// On the processor itself, by Linux.
    Kvm,
    /// On the processor itself, by macOS.
    Hvf,
    /// Translated; works everywhere, and is some ten times slower.
    Tcg,
}

impl Accelerator {
    /// The one of this operating system; what else runs guests here is translation.
    pub const NATIVE: Self = if cfg!(target_os = "macos") { Self::Hvf } else { Self::Kvm };

    /// QEMU's arguments for it, with the CPU model that offers most.
    #[must_use]
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Hvf => ["-accel", "hvf", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    /// QEMU's word for a VM that it stopped (`paused`, `io-error`, …), with what to do where the accelerator is the reason.
    pub(crate) fn stopped_with(self, word: &str) -> String {
        match (word, self) {
            ("internal-error", native @ (Self::Kvm | Self::Hvf)) => {
                format!(
                    "{word}: {native} can't run this guest here; `accel = \"tcg\"` of the target does without it"
                )
            }
            _ => word.to_owned(),
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Hvf => "HVF",
            Self::Tcg => "TCG",
        })
    }
}

/// What a probe found, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The accelerator to use.
    pub accelerator: Accelerator,
    /// The reason, for people.
    pub reason: String,
    /// Whether it was remembered from an earlier probe.
    pub remembered: bool,
    /// What spoke against it when it was tried, of one that was asked for by name.
    pub doubt: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Remembered {
    key: String,
    accelerator: Accelerator,
    reason: String,
}

/// Finds the accelerator for a QEMU binary. The verdict is remembered in a file in `cache` for as long as this
/// machine is not rebooted and the binary does not change.
///
/// Never fails: what can't be tried does not work. Cancel-safe: the probe's QEMU is killed.
pub async fn probe(binary: &Path, cache: Option<&Path>) -> Verdict {
    let key = probe_key(binary);
    let file = cache.map(|directory| directory.join(CACHE_FILE));
    if let Some(known) = file.as_deref().and_then(|path| recall(path, &key)) {
        return Verdict {
            accelerator: known.accelerator,
            reason: known.reason,
            remembered: true,
            doubt: None,
        };
    }
    let native = Accelerator::NATIVE;
    let (accelerator, reason) = match attempt(binary, native).await {
        Ok(()) => (native, format!("a 64-bit guest ran under {native}")),
        Err(reason) => (Accelerator::Tcg, reason),
    };
    tracing::debug!(%accelerator, reason, "accelerator probed");
    if let Some(path) = &file {
        let record = Remembered { key, accelerator, reason: reason.clone() };
        if let Err(error) = remember(path, &record) {
            tracing::debug!(%error, path = %path.display(), "accelerator verdict not remembered");
        }
    }
    Verdict { accelerator, reason, remembered: false, doubt: None }
}

/// The verdict on an accelerator that a site asks for by name. It is taken whatever the probe finds, which may be wrong on
/// a machine that is very busy; what spoke against it is told.
///
/// Never fails. Cancel-safe: the probe's QEMU is killed.
pub async fn asked_for(binary: &Path, accelerator: Accelerator) -> Verdict {
    let doubt = match accelerator {
        Accelerator::Tcg => None,
        native => attempt(binary, native).await.err(),
    };
    Verdict { accelerator, reason: "the site file says so".to_owned(), remembered: false, doubt }
}

async fn attempt(binary: &Path, accelerator: Accelerator) -> Result<(), String> {
    if accelerator == Accelerator::Kvm
        && let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm")
    {
        return Err(format!("/dev/kvm can't be opened: {error}"));
    }
    outrun(binary, accelerator, PROBE_LIMIT)
        .await
        .map_err(|reason| format!("{accelerator} is no use: {reason}"))
}

/// Runs the probe guest beside one that is translated: an accelerator that takes more than twice as long is none, and nobody
/// has to wait for the whole limit to know.
async fn outrun(binary: &Path, accelerator: Accelerator, limit: Duration) -> Result<(), String> {
    let began = Instant::now();
    let mut native = pin!(run_probe_guest(binary, accelerator, limit));
    let translated = tokio::select! {
        reported = &mut native => return reported,
        translated = run_probe_guest(binary, Accelerator::Tcg, limit) => translated,
    };
    if translated.is_err() {
        return native.await;
    }
    let took = began.elapsed();
    let more = took.max(PROBE_GRACE);
    timeout(more, native).await.unwrap_or_else(|_| {
        let (all, took) = ((took + more).as_secs_f64(), took.as_secs_f64());
        Err(format!(
            "a 64-bit guest did not report back within {all:.1} s; translated it took {took:.1} s beside it"
        ))
    })
}

/// Runs the probe guest; `Ok` when it reported back in time.
async fn run_probe_guest(binary: &Path, accelerator: Accelerator, limit: Duration) -> Result<(), String> {
    let name = format!("forge-accel-{}-{:08x}", std::process::id(), rand::random::<u32>());
    let scratch = Scratch(std::env::temp_dir().join(name));
    std::fs::create_dir(&scratch.0).map_err(|error| format!("no scratch directory: {error}"))?;
    let firmware = scratch.0.join("firmware");
    std::fs::write(&firmware, rom()).map_err(|error| format!("no probe image: {error}"))?;
    let launch = Launch::new(binary, scratch.0.join("stderr"))
        .arguments(accelerator.arguments())
        .arguments(["-machine", "pc", "-m", "16", "-nodefaults", "-display", "none", "-no-reboot"])
        .arguments(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x01"])
        .arguments([OsStr::new("-bios"), firmware.as_os_str()]);
    let process = QemuProcess::spawn(launch).await.map_err(|error| error.to_string())?;
    match timeout(limit, process.wait()).await {
        Err(_) => {
            process.kill();
            let _ = process.wait().await;
            Err(format!("a 64-bit guest did not report back within {limit:?}"))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(status)) if status.code() == Some(PROBE_EXIT) => Ok(()),
        Ok(Ok(status)) => Err(process.exit_error(status).to_string()),
    }
}

/// Removes its directory when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a verdict depends on: this boot of the machine, and the binary.
fn probe_key(binary: &Path) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let path = find_program(binary).unwrap_or_else(|| binary.to_owned());
    let (size, changed) = path
        .metadata()
        .map(|meta| {
            let changed = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            (meta.len(), changed.map_or(0, |since| since.as_secs()))
        })
        .unwrap_or_default();
    // Who asks matters too: access to /dev/kvm is by user and group.
    let user = nix::unistd::geteuid();
    format!("{} {} {size} {changed} uid {user}", boot.trim(), path.display())
}

fn recall(path: &Path, key: &str) -> Option<Remembered> {
    let text = std::fs::read(path).ok().filter(|bytes| bytes.len() < 65_536)?;
    serde_json::from_slice::<Remembered>(&text).ok().filter(|known| known.key == key)
}

fn remember(path: &Path, record: &Remembered) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    // Written aside and renamed, so that two builds at once never read half a file.
    let aside = path.with_extension(format!("{}-{:08x}", std::process::id(), rand::random::<u32>()));
    std::fs::write(&aside, serde_json::to_vec(record)?)?;
    std::fs::rename(&aside, path).inspect_err(|_| {
        let _ = std::fs::remove_file(&aside);
    })
}

/// The probe guest as the firmware of a PC: the last 64 KiB below 1 MiB and below 4 GiB, where the processor begins.
fn rom() -> Vec<u8> {
    let mut rom = vec![0; 0x1_0000];
    for (at, bytes) in [(0xe000, LOADER.as_slice()), (0xf000, &GUEST_CODE), (0xfff0, &RESET)] {
        rom[at..at + bytes.len()].copy_from_slice(bytes);
    }
    rom
}

/// The first instruction of a processor: a far jump to the loader at f000:e000.
const RESET: [u8; 5] = [0xea, 0x00, 0xe0, 0x00, 0xf0];

/// Copies the guest to 0x7c00, in memory, where it can write to its tables, and jumps there.
#[rustfmt::skip]
const LOADER: [u8; 26] = [
    // cli; ds = cs; es = 0
    0xfa, 0x8c, 0xc8, 0x8e, 0xd8, 0x31, 0xc0, 0x8e, 0xc0,
    // 0x80 words from f000:f000 to 0:7c00
    0xbe, 0x00, 0xf0, 0xbf, 0x00, 0x7c, 0xb9, 0x80, 0x00, 0xfc, 0xf3, 0xa5,
    // far jump to 0:7c00
    0xea, 0x00, 0x7c, 0x00, 0x00,
];

/// Machine code of the probe guest at 0x7c00, entered in 16-bit mode.
///
/// Page tables lie at 0x1000 (one 2 MiB page, mapped to itself), the interrupt table at 0x4000.
#[rustfmt::skip]
const GUEST_CODE: [u8; 256] = [
    // cli; ax = ds = es = ss = 0; sp = 0x7c00; cld
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfc,
    // clear the page tables: 0x1800 words at 0x1000
    0xbf, 0x00, 0x10, 0xb9, 0x00, 0x18, 0xf3, 0xab,
    // [0x1000] = 0x2003; [0x2000] = 0x3003; [0x3000] = 0x83
    0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0xc7, 0x06, 0x00, 0x30,
    0x83, 0x00,
    // lgdt [0x7cf0]
    0x0f, 0x01, 0x16, 0xf0, 0x7c,
    // cr4 = PAE
    0x66, 0xb8, 0x20, 0x00, 0x00, 0x00, 0x0f, 0x22, 0xe0,
    // cr3 = 0x1000
    0x66, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8,
    // EFER |= long mode enable
    0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00, 0x01, 0x0f, 0x30,
    // cr0 |= paging | protection: now in long mode
    0x0f, 0x20, 0xc0, 0x66, 0x0d, 0x01, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0,
    // far jump to 0x08:0x7c5c, which is 64-bit code
    0xea, 0x5c, 0x7c, 0x08, 0x00,
    // data segments = 0x10; rsp = 0x7c00
    0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0x48, 0xc7, 0xc4, 0x00, 0x7c, 0x00,
    0x00,
    // clear the interrupt table: 0x200 double words at 0x4000
    0xbf, 0x00, 0x40, 0x00, 0x00, 0xb9, 0x00, 0x02, 0x00, 0x00, 0x31, 0xc0, 0xf3, 0xab,
    // a loop of 20,000,000 turns; padding
    0xb9, 0x00, 0x2d, 0x31, 0x01, 0xff, 0xc9, 0x75, 0xfc, 0x90, 0x90, 0x90,
    // gate of vector 6 (invalid opcode) = the handler at 0x7cbf
    0x48, 0x8d, 0x05, 0x31, 0x00, 0x00, 0x00, 0x66, 0x89, 0x04, 0x25, 0x60, 0x40, 0x00, 0x00, 0xc7,
    0x04, 0x25, 0x62, 0x40, 0x00, 0x00, 0x08, 0x00, 0x00, 0x8e,
    // lidt [0x7cf6]
    0x0f, 0x01, 0x1c, 0x25, 0xf6, 0x7c, 0x00, 0x00,
    // rbx = 0x123456789abcdef0
    0x48, 0xbb, 0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12,
    // reload cr3
    0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8,
    // ud2 raises vector 6; if it does not: al = 0x7f, report
    0x0f, 0x0b, 0xb0, 0x7f, 0xeb, 0x13,
    // handler: al = 0x2a if rbx survived in all its 64 bits, else 0x7e
    0x48, 0xb8, 0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 0x48, 0x39, 0xd8, 0xb0, 0x2a, 0x74,
    0x02, 0xb0, 0x7e,
    // report: out 0xf4, al; then halt for ever; padding
    0xe6, 0xf4, 0xf4, 0xeb, 0xfd, 0x90,
    // segments: null, 64-bit code, data
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x20, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x92, 0x00, 0x00,
    // their table: limit 23, at 0x7cd8
    0x17, 0x00, 0xd8, 0x7c, 0x00, 0x00,
    // interrupt table: limit 0x7ff, at 0x4000; padding
    0xff, 0x07, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn qemu() -> Option<PathBuf> {
        let found = find_program(Path::new("qemu-system-x86_64"));
        if found.is_none() {
            println!("skipped: qemu-system-x86_64 is not installed");
        }
        found
    }

    #[test]
    fn a_guest_that_the_processor_could_not_run_is_told_with_what_does_without_it() {
        let told = Accelerator::Kvm.stopped_with("internal-error");
        assert!(
            told.starts_with("internal-error: KVM can't run this guest") && told.contains("tcg"),
            "{told}"
        );
        assert_eq!(Accelerator::Tcg.stopped_with("internal-error"), "internal-error");
        assert_eq!(Accelerator::Kvm.stopped_with("io-error"), "io-error");
    }

    #[tokio::test]
    async fn the_probe_guest_reports_back_under_tcg_which_proves_the_guest_itself() {
        let Some(binary) = qemu() else { return };
        run_probe_guest(&binary, Accelerator::Tcg, Duration::from_secs(60)).await.expect("the guest reports");
    }

    /// `/dev/kvm` may be there and be of no use, in more than one way.
    #[tokio::test]
    async fn an_accelerator_that_fails_or_hangs_is_told_in_qemus_words_or_after_the_limit() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a directory");
        let stand_in = |name: &str, lines: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
            path
        };
        let broken = stand_in("broken", "echo 'ioctl(KVM_CREATE_VM) failed' >&2; exit 1");
        let told = run_probe_guest(&broken, Accelerator::Kvm, Duration::from_secs(60)).await;
        assert!(told.as_ref().is_err_and(|words| words.contains("ioctl(KVM_CREATE_VM) failed")), "{told:?}");
        let silent = stand_in("silent", "exec sleep 600");
        let told = run_probe_guest(&silent, Accelerator::Kvm, Duration::from_millis(300)).await;
        assert!(told.as_ref().is_err_and(|words| words.contains("did not report back within")), "{told:?}");
    }

    /// QEMU is built for one system: on Linux it has no HVF, on macOS no KVM.
    #[tokio::test]
    async fn an_accelerator_of_another_system_is_doubted_in_qemus_words_when_it_is_asked_for() {
        let Some(binary) = qemu() else { return };
        let foreign = if cfg!(target_os = "macos") { Accelerator::Kvm } else { Accelerator::Hvf };
        let verdict = asked_for(&binary, foreign).await;
        assert_eq!(verdict.accelerator, foreign);
        let doubt = verdict.doubt.expect("it can't run here");
        assert!(doubt.starts_with(&format!("{foreign} is no use: ")), "{doubt}");
        assert!(doubt.contains("invalid accelerator") || doubt.contains("/dev/kvm"), "{doubt}");
        assert_eq!(asked_for(&binary, Accelerator::Tcg).await.doubt, None);
    }

    /// What is slower than translation is given up long before the limit; a stand-in is silent but for `tcg`.
    #[tokio::test]
    async fn an_accelerator_that_is_slower_than_translation_is_given_up_by_its_measure() {
        use std::os::unix::fs::PermissionsExt as _;
        let Some(real) = qemu() else { return };
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("slow");
        let lines = format!(
            "#!/bin/sh\ncase \"$*\" in *tcg*) exec {} \"$@\";; esac\nexec sleep 600\n",
            real.display()
        );
        std::fs::write(&path, lines).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
        let told = outrun(&path, Accelerator::Hvf, Duration::from_secs(300)).await;
        let words = |told: &String| told.contains("translated it took");
        assert!(told.as_ref().is_err_and(words), "{told:?}");
    }

    #[tokio::test]
    async fn a_verdict_is_remembered_until_the_binary_changes() {
        let Some(binary) = qemu() else { return };
        let cache = tempfile::tempdir().expect("a directory");
        let first = probe(&binary, Some(cache.path())).await;
        assert!(!first.remembered);
        let second = probe(&binary, Some(cache.path())).await;
        assert!(second.remembered);
        assert_eq!((first.accelerator, &first.reason), (second.accelerator, &second.reason));
        println!("verdict here: {} because {}", first.accelerator, first.reason);

        let other = probe(Path::new("/nonexistent/qemu"), Some(cache.path())).await;
        assert_eq!((other.accelerator, other.remembered), (Accelerator::Tcg, false));
    }

    #[tokio::test]
    async fn a_broken_cache_file_is_probed_over() {
        let cache = tempfile::tempdir().expect("a directory");
        std::fs::write(cache.path().join(CACHE_FILE), b"{\"key\":").expect("written");
        let verdict = probe(Path::new("/nonexistent/qemu"), Some(cache.path())).await;
        assert_eq!(verdict.accelerator, Accelerator::Tcg);
    }
}
