//! Which devices a person means: lists of glob patterns on interface names.
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Patterns separated by commas: `eth*,!eth9,veth?`. `*` stands for any characters, `?` for one, `!` in front takes
/// back what other patterns of the list chose; a list of nothing but `!` patterns starts from everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Patterns(Vec<String>);

impl Patterns {
    /// Whether a name is meant.
    pub fn matches(&self, name: &str) -> bool {
        let (excluded, included): (Vec<_>, Vec<_>) =
            self.0.iter().partition(|pattern| pattern.starts_with('!'));
        let chosen = included.is_empty() || included.iter().any(|pattern| glob(pattern, name));
        let taken_back = excluded
            .iter()
            .filter_map(|pattern| pattern.strip_prefix('!'))
            .any(|pattern| glob(pattern, name));
        chosen && !taken_back
    }
}

impl FromStr for Patterns {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let patterns: Vec<_> = text.split(',').map(|part| part.trim().to_owned()).collect();
        match patterns.iter().find(|pattern| {
            let name = pattern.strip_prefix('!').unwrap_or(pattern);
            name.is_empty() || name.contains(['/', ' ', '!'])
        }) {
            Some(wrong) => Err(format!(
                "`{wrong}` is no pattern of interface names: write some like eth*,wg0,!docker0"
            )),
            None => Ok(Self(patterns)),
        }
    }
}
impl TryFrom<String> for Patterns {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
impl From<Patterns> for String {
    fn from(patterns: Patterns) -> Self {
        patterns.0.join(",")
    }
}
impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Matches a name against one pattern; steps back to the last `*` only, which is enough for globs.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut in_name) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while in_name < name.len() {
        match (pattern.get(at), name.get(in_name)) {
            (Some('*'), _) => {
                star = Some((at + 1, in_name));
                at += 1;
            }
            (Some(wanted), Some(found)) if *wanted == '?' || wanted == found => {
                at += 1;
                in_name += 1;
            }
            _ => {
                let Some((after_star, eaten)) = star else {
                    return false;
                };
                star = Some((after_star, eaten + 1));
                (at, in_name) = (after_star, eaten + 1);
            }
        }
    }
    pattern.iter().skip(at).all(|character| *character == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (pattern, name, matches) in [
            ("*", "eth0", true),
            ("eth*", "eth0", true),
            ("eth*", "veth0", false),
            ("*eth*", "veth0", true),
            ("eth?", "eth10", false),
            ("eth?", "eth1", true),
            ("e*0", "eth10", true),
            ("e*0*1", "eth0001", true),
            ("eth0", "eth00", false),
        ] {
            assert_eq!(glob(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn exclamation_marks_take_back() {
        let patterns: Patterns = "eth*, !eth9".parse().unwrap();
        assert!(patterns.matches("eth0") && !patterns.matches("eth9") && !patterns.matches("wg0"));
        let all_but: Patterns = "!docker*".parse().unwrap();
        assert!(all_but.matches("eth0") && !all_but.matches("docker0"));
    }

    #[test]
    fn an_empty_pattern_is_refused() {
        assert!("eth0,,wg0".parse::<Patterns>().is_err());
        assert!("".parse::<Patterns>().is_err());
        assert!("eth 0".parse::<Patterns>().is_err());
    }
}
