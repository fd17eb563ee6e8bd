//! Random kernel lines typed into GRUB's editor over QEMU's own display: some in every run of the tests, 1,000 on a busy
//! machine by `cargo lab soak typing`, beside the fixed interval without read-back that other builders type with. The
//! forge package does the same over the lab's websocket.

use anyhow::Result;

use super::typing::{self, Busy, Random, SHORT_MENU, proven};
use super::{GRUB, grub, vm};

#[tokio::test(flavor = "multi_thread")]
async fn random_kernel_lines_arrive_exactly_in_grubs_editor() -> Result<()> {
    if vm::missing(&GRUB) {
        return Ok(());
    }
    let (_vm, console) = grub(SHORT_MENU).await?;
    proven(&console, (25, 40), &mut Random(0x5eed)).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes hours: cargo lab soak typing"]
async fn soak_typing() -> Result<()> {
    let _busy = Busy::start()?;
    let (_vm, console) = grub(&typing::soak_menu()).await?;
    typing::measure(&console, "QEMU's display").await
}
