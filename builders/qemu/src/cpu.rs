//! Proxmox VE's own CPU models for a QEMU that has none of them.

/// The levels of the x86-64 ABI as flags of QEMU's `qemu64`, each on top of the one before; the names and what belongs to which
/// are those of Proxmox VE (qemu-server `CPUConfig.pm`).
const LEVELS: [(&str, &str); 4] = [
    ("x86-64-v2", "+popcnt,+pni,+sse4.1,+sse4.2,+ssse3"),
    ("x86-64-v2-AES", "+aes"),
    ("x86-64-v3", "+avx,+avx2,+bmi1,+bmi2,+f16c,+fma,+abm,+movbe,+xsave"),
    ("x86-64-v4", "+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"),
];

/// What QEMU is told for `vm.cpu`: a model of Proxmox VE's own by its flags, anything else as it is.
pub(crate) fn argument(asked: &str) -> String {
    let (model, more) = asked.split_once(',').map_or((asked, ""), |(model, more)| (model, more));
    let Some(level) = level(model) else { return asked.to_owned() };
    let flags = LEVELS.iter().take(level + 1).map(|(_, flags)| *flags);
    let rest = std::iter::once(more).filter(|more| !more.is_empty());
    std::iter::once("qemu64").chain(flags).chain(rest).collect::<Vec<_>>().join(",")
}

/// Whether it is one of Proxmox VE's own.
pub(crate) fn is_level(model: &str) -> bool {
    level(model).is_some()
}

fn level(model: &str) -> Option<usize> {
    LEVELS.iter().position(|(name, _)| *name == model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxmoxs_own_models_are_given_by_their_flags_and_others_stay() {
        for (asked, given) in [
            ("host,-vmx", "host,-vmx"),
            ("max", "max"),
            ("x86-64-v2", "qemu64,+popcnt,+pni,+sse4.1,+sse4.2,+ssse3"),
            ("x86-64-v2-AES", "qemu64,+popcnt,+pni,+sse4.1,+sse4.2,+ssse3,+aes"),
            (
                "x86-64-v3,+pcid",
                "qemu64,+popcnt,+pni,+sse4.1,+sse4.2,+ssse3,+aes,+avx,+avx2,+bmi1,+bmi2,+f16c,+fma,+abm,+movbe,+xsave,+pcid",
            ),
        ] {
            assert_eq!(argument(asked), given);
        }
        assert!(argument("x86-64-v4").ends_with("+xsave,+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"));
        assert!(is_level("x86-64-v4") && !is_level("") && !is_level("x86-64-v5"));
    }
}
