//! Programs that Debian packages: what `tests/debian.sh` finds or fetches, asked once per process.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::broker::repository;

static KNOWN: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);

/// The path of this program. Its version goes to standard error.
///
/// # Panics
/// It is not here and can't be fetched: with what the script says.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    // Held while the script runs: other tests of this process wait for its answer instead of asking too.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = known.get_or_insert_default().get(name) {
        return path.clone();
    }
    let asked = Command::new("sh").arg(repository().join("tests/debian.sh")).arg(name).output();
    let output = asked.unwrap_or_else(|error| panic!("sh does not start: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    eprint!("{said}"); // which version the tests ran with
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    known.get_or_insert_default().insert(name.to_owned(), path.clone());
    path
}
