//! `[source]`.

use forge_machine::CloneSelector;

use super::{Load, beside};
use crate::config::findings::Finding;
use crate::config::place::{Node, Spot};
use crate::config::profile::Source;
use crate::config::reader::Reader;

impl Load<'_> {
    pub(super) fn source(&mut self, root: &mut Reader<'_>) -> Source {
        let mut source = Source { clone: None, full: true, image: None };
        let help = "write `clone = \"boot-vm\"` (Proxmox) or `image = \"disk.qcow2\"` (QEMU) in it";
        if root.any("source").is_none() {
            self.findings.push(root.finding("source", "`[source]` is missing").help(help));
        }
        let Some(mut reader) = root.table("source", &mut self.findings) else { return source };
        let before = self.findings.len();
        source.clone = match reader.any("clone").map(|spot| &spot.node) {
            Some(Node::Table(_)) => self.clone_by_table(&mut reader),
            Some(_) => self.filled(&mut reader, "clone").map(CloneSelector::Name),
            None => None,
        };
        source.full = reader.flag("full", &mut self.findings).unwrap_or(true);
        let place = reader.place_of("image").clone();
        source.image = self.filled(&mut reader, "image").map(|path| beside(&place, &path));
        if let Some(spot) = reader.any("iso") {
            self.iso(&mut reader, spot);
        }
        reader.done(&mut self.findings);
        if source.clone.is_none() && source.image.is_none() && self.findings.len() == before {
            self.findings.push(root.finding("source", "`[source]` names nothing to start from").help(help));
        }
        source
    }

    fn clone_by_table(&mut self, reader: &mut Reader<'_>) -> Option<CloneSelector> {
        let mut inner = reader.table("clone", &mut self.findings)?;
        let before = self.findings.len();
        let vmid = inner.integer("vmid", 100, 999_999_999, &mut self.findings);
        let tags = inner.texts("tags", &mut self.findings).filter(|tags| !tags.is_empty());
        inner.done(&mut self.findings);
        match (vmid, tags) {
            (Some(vmid), None) => Some(CloneSelector::Vmid(vmid)),
            (None, Some(tags)) => Some(CloneSelector::Tags(tags)),
            _ if self.findings.len() > before => None,
            _ => {
                let finding = reader.finding("clone", "`source.clone` needs one of `vmid` and `tags`");
                self.findings.push(finding.help("or write the name: clone = \"boot-vm\""));
                None
            }
        }
    }

    /// Its form is checked, so that it is right once it can be built from.
    fn iso(&mut self, reader: &mut Reader<'_>, spot: &Spot) {
        match &spot.node {
            Node::Table(_) => {
                let Some(mut iso) = reader.table("iso", &mut self.findings) else { return };
                let url = iso.text("url", &mut self.findings);
                let file = iso.text("file", &mut self.findings);
                let checksum = iso.text("checksum", &mut self.findings);
                if url.is_some() == file.is_some() {
                    let finding = reader.finding("iso", "an install medium has one of `url` and `file`");
                    self.findings
                        .push(finding.help("iso = { url = \"https://…\", checksum = \"sha256:…\" }"));
                }
                if url.is_some() && checksum.is_none() {
                    let finding = reader.finding("iso", "a downloaded medium needs its `checksum`");
                    self.findings.push(finding.help("checksum = \"sha256:…\""));
                }
                iso.done(&mut self.findings);
            }
            _ => {
                self.filled(reader, "iso");
            }
        }
        let finding =
            Finding::at(&spot.place, "source.iso", "this version of forge does not build from install media");
        self.findings.push(finding.help("clone a boot VM (`clone`) or start from a disk image (`image`)"));
    }
}
