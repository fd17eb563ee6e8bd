//! What this machine has for guests: memory and CPUs. Where it does not tell, nothing is refused.

use std::path::Path;

use forge_machine::{Finding, MachineSpec};

use crate::args::processors_of;

/// So many times this machine's CPUs a guest may have before it is told that they take turns.
const TURNS: u32 = 4;

/// This machine's memory in MiB, and its CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    total: Option<u64>,
    available: Option<u64>,
    processors: Option<u32>,
}

impl Room {
    /// Looks on this machine.
    pub(crate) fn look() -> Self {
        let text = std::fs::read_to_string(Path::new("/proc/meminfo")).unwrap_or_default();
        let processors = std::thread::available_parallelism().ok();
        Self {
            total: mib(&text, "MemTotal:"),
            available: mib(&text, "MemAvailable:"),
            processors: processors.and_then(|count| u32::try_from(count.get()).ok()),
        }
    }

    /// What of a spec goes beyond it.
    pub(crate) fn findings(&self, spec: &MachineSpec) -> Vec<Finding> {
        self.memory(spec).into_iter().chain(self.turns(spec)).collect()
    }

    fn memory(&self, spec: &MachineSpec) -> Option<Finding> {
        let wanted = spec.memory_mib.map(u64::from)?;
        let (total, available) = (self.total?, self.available);
        let now =
            available.map(|free| format!("; {} are free at the moment", words(free))).unwrap_or_default();
        if wanted > total {
            let message = format!(
                "{} of memory are more than this machine has, which is {}",
                words(wanted),
                words(total)
            );
            return Some(Finding::fatal("vm.memory", message, format!("ask for less{now}")));
        }
        let free = available.filter(|free| wanted > *free)?;
        let message =
            format!("the guest gets {} of memory, and {} are free at the moment", words(wanted), words(free));
        let help =
            "end something first, or ask for less: this machine would swap, or end the VM in mid-build";
        Some(Finding::warning("vm.memory", message, help))
    }

    fn turns(&self, spec: &MachineSpec) -> Option<Finding> {
        let (wanted, there) = (processors_of(spec), self.processors?);
        // Up to a handful it is what a profile says for machines of any kind.
        if wanted <= 8 || wanted <= there.saturating_mul(TURNS) {
            return None;
        }
        let message = format!("the guest gets {wanted} CPUs, and this machine has {there}");
        let help = "they take turns, and the guest is slower than with fewer";
        let setting = if spec.cores.is_some() { "vm.cores" } else { "vm.sockets" };
        Some(Finding::warning(setting, message, help))
    }
}

/// A line of `/proc/meminfo`, which counts in KiB.
fn mib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib >> 10)
}

/// `23.4 GiB`.
fn words(mib: u64) -> String {
    let tenths = mib.saturating_mul(10) >> 10;
    match (mib, tenths % 10) {
        (..1024, _) => format!("{mib} MiB"),
        (_, 0) => format!("{} GiB", tenths / 10),
        (_, tenth) => format!("{}.{tenth} GiB", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use forge_machine::SourceSpec;

    use super::*;

    #[test]
    fn what_this_machine_has_not_is_refused_and_what_is_scarce_is_told() {
        let room = Room { total: Some(24_063), available: Some(8_100), processors: Some(2) };
        let told = |room: Room, memory: Option<u32>, cores: u32, sockets: Option<u32>| {
            let spec = MachineSpec {
                memory_mib: memory,
                cores: Some(cores),
                sockets,
                ..MachineSpec::new(SourceSpec::New, "localhost")
            };
            let found = room.findings(&spec).into_iter();
            found.map(|each| (each.setting, each.message, each.fatal)).collect::<Vec<_>>()
        };
        assert_eq!(told(room, Some(8_100), 8, None), []);
        assert_eq!(told(room, None, 2, None), [], "forge's own default is not the profile's mistake");
        assert_eq!(told(Room::default(), Some(1 << 20), 999, None), [], "nothing is known");
        let memory = |mib: u32| told(room, Some(mib), 2, None);
        let refused = "1024 GiB of memory are more than this machine has, which is 23.4 GiB";
        assert_eq!(memory(1 << 20), [("vm.memory".to_owned(), refused.to_owned(), true)]);
        let scarce = "the guest gets 8 GiB of memory, and 7.9 GiB are free at the moment";
        assert_eq!(memory(8_192), [("vm.memory".to_owned(), scarce.to_owned(), false)]);
        let turns = "the guest gets 12 CPUs, and this machine has 2";
        assert_eq!(told(room, None, 6, Some(2)), [("vm.cores".to_owned(), turns.to_owned(), false)]);
    }

    #[test]
    fn the_figures_are_those_of_linux() {
        let text = "MemTotal:       24640876 kB\nMemFree:  100 kB\nMemAvailable:   20971520 kB\n";
        assert_eq!(
            (mib(text, "MemTotal:"), mib(text, "MemAvailable:"), mib("", "MemTotal:")),
            (Some(24_063), Some(20_480), None)
        );
        if cfg!(target_os = "linux") {
            let here = Room::look();
            assert!(here.total > here.available && here.available > Some(0), "{here:?}");
        }
    }
}
