//! Whose a VM is, read from the VM itself. Pure.

use forge_machine::{BuildState, Nonce, Ownership};

use crate::params::TAG_KEPT;
use crate::vmconfig::VmConfig;

/// Whether a configuration belongs to the build with a nonce.
pub(crate) fn is_ours(config: &VmConfig, nonce: &Nonce) -> Option<BuildState> {
    let mark = Ownership::from_description(config.description()).filter(|mark| mark.nonce == *nonce);
    match mark {
        Some(mark) => Some(mark.state),
        None if config.name() == nonce.vm_name() => {
            let kept = config.tags().any(|tag| tag == TAG_KEPT);
            Some(if kept { BuildState::Kept } else { BuildState::Building })
        }
        None => None,
    }
}

/// The mark of a VM that a build left behind. Clones that people made of a template carry its notes too, so the mark
/// alone proves nothing: the name must be the build's own, or the tag say that it was kept.
pub(crate) fn orphan_mark(config: &VmConfig) -> Option<Ownership> {
    let mark = Ownership::from_description(config.description())?;
    let named = config.name() == mark.nonce.vm_name();
    let kept = mark.state != BuildState::Building && config.tags().any(|tag| tag == TAG_KEPT);
    (!config.is_template() && (named || kept)).then_some(mark)
}

#[cfg(test)]
mod tests {
    use forge_machine::ChainId;

    use super::*;

    fn mark(state: BuildState) -> Ownership {
        Ownership {
            nonce: Nonce::from_bytes([0xab; 8]),
            chain_id: ChainId::new("CHAIN-20261121T040506Z-debian-12"),
            owner: "ops@ci".into(),
            started: "2026-11-21T04:05:06Z".parse().expect("valid"),
            heartbeat: "2026-11-21T04:05:06Z".parse().expect("valid"),
            state,
            memory_mib: None,
        }
    }

    #[test]
    fn a_vm_is_ours_by_its_name_or_its_mark_and_by_nothing_else() {
        let ours = mark(BuildState::Building);
        let kept = mark(BuildState::Kept);
        let other = Nonce::from_bytes([0xcd; 8]);
        let notes = format!("Debian 12\n\n{}", ours.to_description());
        for (case, config, nonce, expected) in [
            ("name", vec![("name", ours.nonce.vm_name())], &ours.nonce, Some(BuildState::Building)),
            (
                "name and tag",
                vec![("name", ours.nonce.vm_name()), ("tags", "forge-kept".into())],
                &ours.nonce,
                Some(BuildState::Kept),
            ),
            (
                "finished notes",
                vec![("name", "tpl".to_owned()), ("description", notes.clone())],
                &ours.nonce,
                Some(BuildState::Building),
            ),
            (
                "kept mark",
                vec![("name", "tpl".to_owned()), ("description", kept.to_description())],
                &ours.nonce,
                Some(BuildState::Kept),
            ),
            ("another build", vec![("name", ours.nonce.vm_name()), ("description", notes)], &other, None),
            (
                "a clone under way",
                vec![("description", " qmclone temporary file".to_owned())],
                &ours.nonce,
                None,
            ),
            ("no name at all", vec![], &ours.nonce, None),
        ] {
            assert_eq!(is_ours(&VmConfig::from_iter(config), nonce), expected, "{case}");
        }
    }

    #[test]
    fn a_clone_that_somebody_made_of_a_template_is_no_orphan() {
        let ours = mark(BuildState::Building);
        let kept = mark(BuildState::Kept);
        for (case, config, is_orphan) in [
            (
                "a build VM",
                vec![("name", ours.nonce.vm_name()), ("description", ours.to_description())],
                true,
            ),
            (
                "a kept VM with its final name",
                vec![
                    ("name", "tpl".into()),
                    ("tags", "forge-kept".into()),
                    ("description", kept.to_description()),
                ],
                true,
            ),
            (
                "somebody's clone",
                vec![("name", "forge-web".into()), ("description", ours.to_description())],
                false,
            ),
            (
                "a template",
                vec![
                    ("name", ours.nonce.vm_name()),
                    ("template", "1".into()),
                    ("description", ours.to_description()),
                ],
                false,
            ),
            ("a name without a mark", vec![("name", ours.nonce.vm_name())], false),
        ] {
            assert_eq!(orphan_mark(&VmConfig::from_iter(config)).is_some(), is_orphan, "{case}");
        }
    }
}
