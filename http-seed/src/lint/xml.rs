//! XML as a tree of names with their lines.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::Found;

/// An element.
#[derive(Debug)]
pub(super) struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub text: String,
    pub children: Vec<Element>,
    pub line: usize,
}

impl Element {
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Every element below, itself first.
    pub(super) fn all(&self) -> Vec<&Element> {
        let mut out = vec![self];
        for child in &self.children {
            out.extend(child.all());
        }
        out
    }
}

/// Elements within each other; no answer file comes near.
const DEEPEST: usize = 100;

/// Reads a document.
///
/// # Errors
/// When it is not well-formed.
pub(super) fn parse(text: &str) -> Result<Element, Found> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let (mut line, mut counted) = (1, 0);
    loop {
        // The position is before the blanks of the next line when an element follows text.
        let at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX).min(text.len());
        line += text.as_bytes().get(counted..at).unwrap_or_default().iter().filter(|b| **b == b'\n').count();
        counted = counted.max(at);
        let wrong = |error: String| Found::new(line, format!("this is no well-formed XML: {error}"), "");
        match reader.read_event().map_err(|error| wrong(error.to_string()))? {
            Event::Start(_) if open.len() >= DEEPEST => {
                return Err(Found::new(line, format!("more than {DEEPEST} elements within each other"), ""));
            }
            Event::Start(start) => open.push(element(&start, line).map_err(wrong)?),
            Event::Empty(start) => {
                let element = element(&start, line).map_err(wrong)?;
                place(&mut open, &mut root, element).map_err(wrong)?;
            }
            Event::End(_) => {
                if let Some(element) = open.pop() {
                    place(&mut open, &mut root, element).map_err(wrong)?;
                }
            }
            Event::Text(piece) => {
                let piece = piece.to_string();
                match open.last_mut() {
                    Some(element) => element.text.push_str(&piece),
                    None if piece.trim().is_empty() => {}
                    None => return Err(wrong("text stands outside of the document's element".into())),
                }
            }
            Event::GeneralRef(reference) => {
                let name = reference.to_string();
                let known =
                    ["amp", "lt", "gt", "quot", "apos"].contains(&name.as_str()) || name.starts_with('#');
                if !known {
                    return Err(wrong(format!("there is no entity `{name}`")));
                }
                if let Some(element) = open.last_mut() {
                    element.text.push('?');
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let last = text.lines().count().max(1);
    match (open.pop(), root) {
        (Some(left), _) => Err(Found::new(left.line, format!("<{}> is not closed", left.name), "")),
        (None, Some(root)) => Ok(root),
        (None, None) => Err(Found::new(last, "the document is empty", "")),
    }
}

fn place(open: &mut [Element], root: &mut Option<Element>, element: Element) -> Result<(), String> {
    match open.last_mut() {
        Some(parent) => parent.children.push(element),
        None if root.is_none() => *root = Some(element),
        None => return Err(format!("<{}> is a second document", element.name)),
    }
    Ok(())
}

fn element(start: &BytesStart<'_>, line: usize) -> Result<Element, String> {
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let key = attribute.key.as_ref().to_owned();
        attributes.push((key, attribute.value.to_string()));
    }
    let name = start.name().as_ref().to_owned();
    Ok(Element { name, attributes, text: String::new(), children: Vec::new(), line })
}
