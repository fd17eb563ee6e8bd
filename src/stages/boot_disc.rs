//! A disc that starts an installer without a key being pressed: the loaders of its own medium, which its makers signed, and a
//! menu of forge's that has GRUB start the medium's kernel with the address of the answers.
//!
//! GRUB reads its menu from the disc that it was started from, at a place that its makers chose, so the menu is at each of
//! those: beside the loader, as on the media of Fedora and its kin and of openSUSE; in `boot/grub` or the maker's own folder
//! beside the loader, as Debian and Ubuntu have it (the tests start Debian's signed gcdx64.efi of GRUB 2.06).

use std::path::Path;

use forge_http_seed::{SeedSet, disc};
use forge_iso::Iso;

use super::{Seeded, media};
use crate::config::beside;
use crate::engine::{Cx, StageError};
use crate::event::Stage;
use crate::plan::BootDisc;

/// Where UEFI looks for what it starts from a medium, and the first of what it may be (UEFI specification, 3.5.1.1).
const FOLDER: &str = "EFI/BOOT";
const FIRST: &str = "BOOTX64.EFI";
/// Where GRUBs look for their menu.
const MENUS: [&str; 6] = [
    "EFI/BOOT/grub.cfg",
    "EFI/debian/grub.cfg",
    "EFI/ubuntu/grub.cfg",
    "boot/grub/grub.cfg",
    "boot/grub/x86_64-efi/grub.cfg",
    "boot/grub2/grub.cfg",
];

/// The disc; `None` where the build has none.
///
/// # Errors
/// When the medium can't be had, or lacks the kernel, an initrd or a loader for UEFI.
pub(super) async fn make(cx: &Cx, seeded: &Seeded) -> Result<Option<Vec<u8>>, StageError> {
    let plan = &cx.plan;
    let (Some(starts), Some(medium)) = (&plan.boot_disc, plan.machine.isos.first()) else { return Ok(None) };
    cx.doing(Stage::Create, "making the boot disc");
    let cmdline = seeded.kernel_cmdline(cx)?.unwrap_or_default();
    let path = media::here(cx, medium).await?;
    let (starts, wanted) = (starts.clone(), medium.to_string());
    let read = tokio::task::spawn_blocking(move || read(&path, &starts, &cmdline));
    let failed = |error| {
        StageError::caused(format!("no boot disc can be made for {wanted}"), error)
            .hint("name its kernel and initrds in `source`, or have the seed go another way: `seed.delivery`")
    };
    let (loaders, menu) = read
        .await
        .map_err(|error| StageError::caused("the boot disc could not be made", error))?
        .map_err(failed)?;
    let mut files = with_menu(SeedSet::default(), &menu);
    beside::add_to(&mut files, plan.seed.on_disc())
        .map_err(|error| StageError::caused("a file of the profile can't be put on the boot disc", error))?;
    disc::bootable(plan.seed.disc_label(), &files, &with_menu(loaders, &menu))
        .map(Some)
        .map_err(|error| StageError::caused("the boot disc could not be made", error))
}

fn with_menu(set: SeedSet, menu: &str) -> SeedSet {
    MENUS.into_iter().fold(set, |set, name| set.with(name, menu.to_owned()))
}

/// The medium's loaders, and the menu for it.
fn read(path: &Path, starts: &BootDisc, cmdline: &str) -> Result<(SeedSet, String), forge_iso::IsoError> {
    let mut iso = Iso::open(path)?;
    for file in starts.initrds.iter().chain([&starts.kernel]) {
        iso.check(file)?;
    }
    iso.check(&format!("/{FOLDER}/{FIRST}"))?;
    let mut loaders = SeedSet::default();
    for name in iso.files(FOLDER)?.into_iter().filter(|name| is_loader(name)) {
        let mut bytes = Vec::new();
        iso.extract(&format!("{FOLDER}/{name}"), &mut bytes)?;
        loaders = loaders.with(format!("{FOLDER}/{name}"), bytes);
    }
    Ok((loaders, menu(iso.label(), starts, cmdline)))
}

/// Whether a file of that folder is needed: programs for this processor, without shim's fallback, which writes boot entries.
fn is_loader(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let other = ["ia32", "aa64", "riscv64"].iter().any(|processor| name.contains(processor));
    Path::new(&name).extension().is_some_and(|extension| extension == "efi")
        && !other
        && !name.starts_with("fb")
}

/// What GRUB does: it finds the medium by its label, or by its kernel where the label says nothing, and starts that.
fn menu(label: &str, starts: &BootDisc, cmdline: &str) -> String {
    let kernel = quoted(&starts.kernel);
    let initrds: String = starts.initrds.iter().map(|path| format!(" {}", quoted(path))).collect();
    let told: String = words(cmdline).iter().map(|word| format!(" {}", quoted(word))).collect();
    let by_label = match label {
        "" => String::new(),
        label => format!("search --no-floppy --set=root --label {}\n", quoted(label)),
    };
    let initrd = if initrds.is_empty() { String::new() } else { format!("initrd{initrds}\n") };
    format!(
        "# Made by forge: starts the installer of the medium in the other drive.\n\
         set timeout=0\n\
         {by_label}\
         if [ ! -f {kernel} ]; then search --no-floppy --set=root --file {kernel}; fi\n\
         echo 'forge: starting the installer'\n\
         linux {kernel}{told}\n\
         {initrd}\
         boot\n"
    )
}

/// A word of GRUB's language that stands for itself.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The words of a command line as the kernel reads them; GRUB puts quotes around those with spaces again.
fn words(cmdline: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut inside) = (String::new(), false);
    for c in cmdline.chars() {
        match c {
            '"' => inside = !inside,
            c if c.is_whitespace() && !inside => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_starts_the_kernel_of_the_medium_with_each_word_as_it_is() {
        let starts = BootDisc {
            kernel: "/install.amd/vmlinuz".into(),
            initrds: vec!["/install.amd/initrd.gz".into()],
        };
        let told =
            "auto=true url=http://192.0.2.1:8800/x/preseed.cfg ds=nocloud;s=http://a/ a=\"b $c\" it's ---";
        insta::assert_snapshot!(menu("Debian 12.11.0 amd64 n", &starts, told), @r#"
        # Made by forge: starts the installer of the medium in the other drive.
        set timeout=0
        search --no-floppy --set=root --label 'Debian 12.11.0 amd64 n'
        if [ ! -f '/install.amd/vmlinuz' ]; then search --no-floppy --set=root --file '/install.amd/vmlinuz'; fi
        echo 'forge: starting the installer'
        linux '/install.amd/vmlinuz' 'auto=true' 'url=http://192.0.2.1:8800/x/preseed.cfg' 'ds=nocloud;s=http://a/' 'a=b $c' 'it'\''s' '---'
        initrd '/install.amd/initrd.gz'
        boot
        "#);
        let bare = menu("", &BootDisc { kernel: "/k".into(), initrds: Vec::new() }, "");
        assert!(
            !bare.contains("--label") && !bare.contains("initrd") && bare.contains("linux '/k'\n"),
            "{bare}"
        );
    }

    #[test]
    fn loaders_for_this_processor_are_taken_along() {
        let names = ["BOOTX64.EFI", "grubx64.efi", "mmx64.efi", "MokManager.efi", "grub.efi"];
        assert!(names.iter().all(|name| is_loader(name)));
        let others = ["BOOTIA32.EFI", "grubaa64.efi", "fbx64.efi", "grub.cfg", "fonts"];
        assert!(!others.iter().any(|name| is_loader(name)));
    }
}
