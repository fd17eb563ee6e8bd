//! `extends`: the table of a profile laid over that of the file it extends.
//!
//! Tables merge; scalars and arrays replace; `[[provision]]` and `template.tags` append; a provisioner of the same
//! name replaces; `enabled = false` drops. Every value keeps the place it came from.

use super::findings::{Finding, suggest};
use super::place::{Node, Spot, Table};

/// Tables that are one value in several words: the profile's own replaces the base's as a whole.
const WHOLE: [&str; 5] = ["source.clone", "source.iso", "source.image", "source.kernel", "source.initrd"];

/// Lays a profile over its base.
#[must_use]
pub fn lay_over(base: Table, over: Table, findings: &mut Vec<Finding>) -> Table {
    merge(base, over, "", findings)
}

fn merge(mut base: Table, over: Table, path: &str, findings: &mut Vec<Finding>) -> Table {
    for (key, place, spot) in over.entries {
        let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(index) = base.entries.iter().position(|(present, ..)| *present == key) else {
            let spot = match spot.node {
                Node::List(above) if name == "provision" => {
                    Spot { node: Node::List(provisioners(Vec::new(), above, findings)), place: spot.place }
                }
                node => Spot { node, place: spot.place },
            };
            base.entries.push((key, place, spot));
            continue;
        };
        let (_, _, old) = base.entries.remove(index);
        let node = match (old.node, spot.node) {
            (Node::Table(below), Node::Table(above)) if !WHOLE.contains(&name.as_str()) => {
                Node::Table(merge(below, above, &name, findings))
            }
            (Node::List(below), Node::List(above)) if name == "provision" => {
                Node::List(provisioners(below, above, findings))
            }
            (Node::List(mut below), Node::List(above)) if name == "template.tags" => {
                below.extend(above);
                Node::List(below)
            }
            (_, above) => above,
        };
        base.entries.insert(index, (key, place, Spot { node, place: spot.place }));
    }
    base
}

fn provisioners(mut below: Vec<Spot>, above: Vec<Spot>, findings: &mut Vec<Finding>) -> Vec<Spot> {
    for spot in above {
        let Some(wanted) = name(&spot) else {
            below.push(spot);
            continue;
        };
        if let Some(old) = below.iter_mut().find(|each| name(each) == Some(wanted)) {
            *old = spot;
        } else if only_switches_off(&spot) {
            let message = format!("there is no provisioner `{wanted}` to drop");
            let known: Vec<&str> = below.iter().filter_map(name).collect();
            findings.push(Finding::at(&spot.place, "provision", message).help(suggest(wanted, &known)));
        } else {
            below.push(spot);
        }
    }
    below
}

/// `{ name = "…", enabled = false }` and nothing else.
fn only_switches_off(spot: &Spot) -> bool {
    let Node::Table(table) = &spot.node else { return false };
    table.entries.len() == 2 && matches!(table.get("enabled"), Some(Spot { node: Node::Bool(false), .. }))
}

fn name(spot: &Spot) -> Option<&str> {
    let Node::Table(table) = &spot.node else { return None };
    match table.get("name") {
        Some(Spot { node: Node::Text(text), .. }) => Some(text),
        _ => None,
    }
}
