//! What a person should know: something was left out, where, and what to do about it.
use std::fmt;

use serde::{Deserialize, Serialize};

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
    /// A warning.
    pub fn new(
        subject: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            subject: subject.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.subject, self.problem, self.remedy)
    }
}
