//! What an installer does and leaves, by the words of `[source]`.

use forge_machine::IsoDrives;

use super::{load, sound};
use crate::plan::AfterInstall;

fn source(more: &str) -> String {
    format!("schema = 1\nname = \"x\"\n[source]\n{more}")
}

#[test]
fn what_an_installer_does_and_leaves_is_said_where_there_is_one() {
    let text = source("iso = \"local:iso/x.iso\"\niso-drives = \"empty\"\nafter-install = \"poweroff\"\n");
    let said = sound(&[("x.toml", &text)]).source;
    assert_eq!((said.iso_drives, said.after_install), (IsoDrives::Empty, Some(AfterInstall::Poweroff)));
    let silent = sound(&[("x.toml", &source("iso = \"local:iso/x.iso\"\n"))]).source;
    assert_eq!((silent.iso_drives, silent.after_install), (IsoDrives::Drop, None));

    let text = source("clone = \"boot-vm\"\niso-drives = \"keep\"\nafter-install = \"halt\"\n");
    let (_, told) = load(&[("x.toml", &text)]);
    for message in [
        "x.toml:6:17: `halt` is no value of `source.after-install`",
        "x.toml:5:14: `source.iso-drives` is for a `source.iso`",
        "`source.after-install` is for a `source.iso`",
    ] {
        assert!(told.contains(message), "{message}: {told}");
    }
}
