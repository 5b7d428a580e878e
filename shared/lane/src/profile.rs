//! What kind of software the instance runs: it says how its refusals are read.

use std::fmt;

/// Whose habits the instance's answers follow (DESIGN section 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// The status alone tells.
    #[default]
    Generic,
    /// Lemmy says 400 to everything, and the body tells why.
    Lemmy,
    /// Mastodon answers by status, 401 for a signature.
    Mastodon,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Generic, Self::Lemmy, Self::Mastodon];

    /// The word in settings and batches.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Lemmy => "lemmy",
            Self::Mastodon => "mastodon",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no [`Profile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of generic, lemmy, mastodon")]
pub struct InvalidProfile;

impl std::str::FromStr for Profile {
    type Err = InvalidProfile;

    fn from_str(text: &str) -> Result<Self, InvalidProfile> {
        Self::ALL.into_iter().find(|profile| profile.as_str() == text).ok_or(InvalidProfile)
    }
}
