//! What a person should know: something was left out, where, and what to do about it.
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::printable;

/// Something that was not taken as it was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Warning {
    /// Where: an object (`Service default/web`) or a place in a file (`web.yaml, document 2`).
    pub subject: String,
    /// What is wrong, and what was done about it.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl Warning {
    /// A warning, fit to be printed whatever the names in it are.
    pub fn new(
        subject: impl AsRef<str>,
        problem: impl AsRef<str>,
        remedy: impl AsRef<str>,
    ) -> Self {
        Self {
            subject: printable(subject.as_ref()).into_owned(),
            problem: printable(problem.as_ref()).into_owned(),
            remedy: printable(remedy.as_ref()).into_owned(),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.subject, self.problem, self.remedy)
    }
}
