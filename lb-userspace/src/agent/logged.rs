//! What has been logged about each Service, so that nothing is logged twice: its slices change all the time.
use std::collections::{BTreeMap, BTreeSet};

use crate::model::{ServiceName, Warning};

/// The warnings about each Service that hold and have been logged.
#[derive(Debug, Default)]
pub(super) struct Logged(BTreeMap<ServiceName, BTreeSet<Warning>>);

impl Logged {
    /// Of all that is to be said about a Service, what has not been said yet. What is not among it any more is
    /// forgotten: should it come back, it is news.
    pub(super) fn news(&mut self, name: &ServiceName, warnings: BTreeSet<Warning>) -> Vec<Warning> {
        let known = self.0.remove(name).unwrap_or_default();
        let news = warnings.difference(&known).cloned().collect();
        if !warnings.is_empty() {
            self.0.insert(name.clone(), warnings);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(problems: &[&str]) -> BTreeSet<Warning> {
        let of = |problem: &&str| Warning::new("EndpointSlice default/web-1", *problem, "mend it");
        problems.iter().map(of).collect()
    }

    #[test]
    fn only_what_is_new_about_a_service_is_said() {
        let (web, shop) = (
            ServiceName::new("default", "web"),
            ServiceName::new("default", "shop"),
        );
        let mut logged = Logged::default();
        let mut news = |name, problems: &[&str]| {
            let news = logged.news(name, warnings(problems)).into_iter();
            news.map(|warning| warning.problem).collect::<Vec<_>>()
        };
        assert_eq!(news(&web, &["a", "b"]), ["a", "b"]);
        assert_eq!(news(&web, &["a", "b"]), [""; 0], "said twice");
        assert_eq!(news(&shop, &["a"]), ["a"], "another Service");
        assert_eq!(news(&web, &["b", "c"]), ["c"]);
        assert_eq!(news(&web, &["a", "b", "c"]), ["a"], "it came back");
        assert_eq!(news(&web, &[]), [""; 0]);
        assert!(!logged.0.contains_key(&web), "remembers who has nothing");
    }
}
