//! The table of Packer's options names tests that are there.

use std::path::Path;

fn sources(folder: &Path, all: &mut String) {
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(&path).expect("read"));
        }
    }
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(here.join("README.md")).expect("read");
    let read = |folders: &[&str]| {
        let mut all = String::new();
        folders.iter().for_each(|folder| sources(&here.join(folder), &mut all));
        all
    };
    let places = [
        ("P", read(&["tests/it"])),
        ("U", read(&["src"])),
        ("I", read(&["../../tests/it"])),
        ("C", read(&["../../src/config/tests"])),
    ];
    let mut named = 0;
    for (place, text) in &places {
        for part in page.split(&format!("{place} `")).skip(1) {
            let name = part.split('`').next().unwrap_or_default();
            // What is no sentence is an option in a cell that ends with such a letter.
            if name.matches('_').count() < 4 {
                continue;
            }
            assert!(text.contains(&format!("fn {name}(")), "{place} `{name}` is not there");
            named += 1;
        }
    }
    assert!(named > 30, "{named} tests are named");
}
