//! What is settled about the media of a profile before its plan is made: the sums that publishers' files have for them,
//! and what will be downloaded. Asks the web, changes nothing on the target.

use std::collections::BTreeMap;

use forge_machine::{BootFile, Checksum, Location, Medium};

use super::{Store, Watch, shown};
use crate::config::Finding;
use crate::config::profile::{Profile, Source};
use crate::plan::Download;
use crate::plan::make::located;

/// Every medium of a source, with the name of its setting.
fn media_mut(source: &mut Source) -> Vec<(String, &mut Medium)> {
    let mut media: Vec<(String, &mut Medium)> = Vec::new();
    media.extend(source.image.as_mut().map(|image| ("source.image".to_owned(), image)));
    for (index, iso) in source.isos.iter_mut().enumerate() {
        let name = match index {
            0 => "source.iso".to_owned(),
            more => format!("source.additional-isos[{}]", more - 1),
        };
        media.push((name, iso));
    }
    if let Some(kernel) = &mut source.kernel {
        if let BootFile::Medium(medium) = &mut kernel.files.kernel {
            media.push(("source.kernel".to_owned(), medium));
        }
        for initrd in &mut kernel.files.initrds {
            if let BootFile::Medium(medium) = initrd {
                media.push(("source.initrd".to_owned(), medium));
            }
        }
    }
    media
}

/// The URLs of all media of a source, and of the publishers' files of their sums.
#[must_use]
pub fn urls(source: &mut Source) -> Vec<String> {
    let media = media_mut(source);
    let places = media.iter().filter_map(|(_, medium)| super::http::url_of(&medium.location));
    let sums = media.iter().filter_map(|(_, medium)| match &medium.checksum {
        Checksum::File(place) => Some(place.as_str()),
        Checksum::None | Checksum::Digest { .. } => None,
    });
    places.chain(sums).map(str::to_owned).collect()
}

/// Replaces publishers' files of sums by the sums in them. What can't be had is a finding.
pub async fn sums(profile: &mut Profile, store: &Store, watch: &dyn Watch) -> Vec<Finding> {
    let mut wrong = Vec::new();
    for (setting, medium) in media_mut(&mut profile.source) {
        let Checksum::File(place) = &medium.checksum else { continue };
        match store.sum(place, &medium.location.to_string(), watch).await {
            Ok(checksum) => medium.checksum = checksum,
            Err(error) => wrong.push((setting, crate::engine::error::chain(&error))),
        }
    }
    wrong
        .into_iter()
        .map(|(setting, message)| {
            located(profile, &setting, message)
                .help("`file:` names the publisher's file of sums: a URL, or a path beside the profile")
        })
        .collect()
}

/// What a build downloads of some media, with its size where the server tells it, and what could not be asked.
pub async fn downloads<'a>(
    media: impl Iterator<Item = &'a Medium>,
    mirrors: &BTreeMap<String, Vec<String>>,
    store: &Store,
) -> (Vec<Download>, Vec<Finding>) {
    let (mut downloads, mut findings) = (Vec::new(), Vec::new());
    for medium in media {
        let Location::Url(url) = &medium.location else { continue };
        let mirrors = mirrors.get(url).cloned().unwrap_or_default();
        let held = store.held(medium);
        let (size, here) = match &held {
            Some(path) => (std::fs::metadata(path).map(|metadata| metadata.len()).ok(), true),
            None => (None, false),
        };
        let mut download = Download { url: url.clone(), mirrors, size, here };
        if !here {
            let mut failures = Vec::new();
            for url in std::iter::once(&download.url).chain(&download.mirrors) {
                match store.probe(url).await {
                    Ok(size) => {
                        download.size = size;
                        failures.clear();
                        break;
                    }
                    Err(error) => failures.push(error.to_string()),
                }
            }
            if !failures.is_empty() {
                let message = format!("{} may not be there: {}", shown(&download.url), failures.join("; "));
                findings.push(Finding::general(message).warning());
            }
        }
        downloads.push(download);
    }
    (downloads, findings)
}
