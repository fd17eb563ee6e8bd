//! The values that a plan leaves open, as they become known.

use std::collections::BTreeMap;

use crate::event::{Event, Events};
use crate::plan::late::{LateName, LateText, Part};

/// A late value was used before it was known: a fault of forge, not of the profile.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`<{name}>` is used before it is known")]
pub struct Unbound {
    /// The name.
    pub name: LateName,
}

/// The values that are known so far. Each binding is an event.
#[derive(Clone, Debug)]
pub struct Bindings {
    values: BTreeMap<LateName, String>,
    events: Events,
}

impl Bindings {
    /// Nothing is known.
    #[must_use]
    pub fn new(events: Events) -> Self {
        Self { values: BTreeMap::new(), events }
    }

    /// Makes a value known.
    pub fn bind(&mut self, name: LateName, value: impl Into<String>) {
        let value = value.into();
        self.events.emit(Event::Bound { name: name.to_string(), value: value.clone() });
        self.values.insert(name, value);
    }

    /// A value, when it is known.
    #[must_use]
    pub fn get(&self, name: LateName) -> Option<&str> {
        self.values.get(&name).map(String::as_str)
    }

    /// Puts the values into a text.
    ///
    /// # Errors
    /// When one of them is not known yet.
    pub fn resolve(&self, text: &LateText) -> Result<String, Unbound> {
        self.resolve_with(text, None)
    }

    /// As [`Self::resolve`], with one value that stands in this text alone.
    ///
    /// # Errors
    /// When one of them is not known yet.
    pub fn resolve_with(&self, text: &LateText, own: Option<(LateName, &str)>) -> Result<String, Unbound> {
        let own = |name: LateName| own.filter(|(own, _)| *own == name).map(|(_, value)| value);
        text.parts()
            .iter()
            .map(|part| match part {
                Part::Text(text) => Ok(text.as_str()),
                Part::Late(name) => own(*name).or_else(|| self.get(*name)).ok_or(Unbound { name: *name }),
            })
            .collect()
    }
}
