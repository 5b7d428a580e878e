//! A directory of PEM files, one an actor (`<actor id>.pem`): a mounted secret.
//!
//! A file is read again when its time or its length changes, asked at each lookup; what a swap of the mount's symbolic link
//! brings (Kubernetes does that) is seen too, for the file behind the name counts. A file that can't be read after it could
//! is said in the log, and the keys known before go on signing: half a write must not stop deliveries.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use uuid::Uuid;

use super::pem::{self, ID_RULE};
use super::{ActorKeys, Error, SigningKeys};

/// Actors whose parsed keys are kept. Reading one takes a fraction of a millisecond; this bounds memory (some 4 kB each).
const KEPT_MAX: usize = 10_000;

/// A file larger than this is no key.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What a template has in place of the actor's id.
const PLACE: &str = "{actor}";

/// The directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not there, not a directory, no permission.
    #[error("the directory of signing keys {path} can't be read: {cause}", path = .path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// All actors would have one key id.
    #[error(
        "{0:?} is no template of key ids: it has no {PLACE} in it, for example https://our.example/users/{PLACE}#main-key"
    )]
    Template(String),
    /// No key with such an id could sign anything.
    #[error("{0:?} is no template of key ids: {ID_RULE}")]
    TemplateText(String),
}

/// Signing keys out of a directory.
pub struct PemDirectory {
    shared: Arc<Shared>,
}

struct Shared {
    directory: PathBuf,
    template: Option<String>,
    known: Mutex<HashMap<Uuid, Known>>,
}

struct Known {
    stamp: Stamp,
    keys: Result<Arc<ActorKeys>, String>,
}

/// Why a file gives no keys.
enum Fault {
    /// The system would not have it read: no permission, too many open files. That passes without a change of the file.
    Read(String),
    /// What is in it: that stays until the file changes.
    Text(String),
}

/// By which a change of a file is noticed.
type Stamp = (Option<SystemTime>, u64);

impl PemDirectory {
    /// The directory, and a template of key ids (`{actor}` stands for the actor's id) for files that name none.
    ///
    /// # Errors
    /// There is no such directory, or the template would give all actors one id, or one that can't be sent.
    pub fn open(directory: impl Into<PathBuf>, template: Option<String>) -> Result<Self, Unreadable> {
        let directory = directory.into();
        std::fs::read_dir(&directory).map_err(|cause| Unreadable::Directory { path: directory.clone(), cause })?;
        if let Some(template) = template.as_ref().filter(|template| !template.contains(PLACE)) {
            return Err(Unreadable::Template(template.clone()));
        }
        if let Some(template) = template.as_ref().filter(|template| !pem::is_id(template)) {
            return Err(Unreadable::TemplateText(template.clone()));
        }
        Ok(Self { shared: Arc::new(Shared { directory, template, known: Mutex::default() }) })
    }
}

#[async_trait]
impl SigningKeys for PemDirectory {
    async fn keys(&self, actor: Uuid) -> Result<Arc<ActorKeys>, Error> {
        let shared = self.shared.clone();
        let read = tokio::task::spawn_blocking(move || shared.keys(actor)).await;
        read.unwrap_or_else(|error| Err(Error::Unavailable { actor, cause: error.to_string() }))
    }
}

impl Shared {
    fn keys(&self, actor: Uuid) -> Result<Arc<ActorKeys>, Error> {
        let unavailable = |cause: String| Error::Unavailable { actor, cause };
        let path = self.directory.join(format!("{actor}.pem"));
        let facts = match std::fs::metadata(&path) {
            Ok(facts) => facts,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.known().remove(&actor); // a key that was taken away signs no more
                return Err(Error::Unknown(actor));
            }
            Err(error) => return Err(unavailable(error.to_string())),
        };
        let stamp = (facts.modified().ok(), facts.len());
        let before = {
            let known = self.known();
            let before = known.get(&actor);
            if let Some(before) = before.filter(|before| before.stamp == stamp) {
                return before.keys.clone().map_err(unavailable);
            }
            before.and_then(|before| before.keys.clone().ok())
        };
        let read = self.read(&path, facts.len(), actor);
        // Of a file that could not be read nothing is known: the next look may find it, with the same time and length.
        let lasting = !matches!(read, Err(Fault::Read(_)));
        let read = read.map_err(|(Fault::Read(cause) | Fault::Text(cause))| cause);
        let keys = match (read, before) {
            (Err(cause), Some(before)) => {
                tracing::warn!(path = %path.display(), %cause, "a signing key can't be read any more; the one before goes on signing");
                Ok(before)
            }
            (read, _) => read,
        };
        if !lasting {
            return keys.map_err(unavailable);
        }
        let mut known = self.known();
        if known.len() >= KEPT_MAX && !known.contains_key(&actor) {
            known.clear(); // the actors of the moment are read again; an order of leaving would cost more than it saves
        }
        known.insert(actor, Known { stamp, keys: keys.clone() });
        keys.map_err(unavailable)
    }

    fn read(&self, path: &Path, bytes: u64, actor: Uuid) -> Result<Arc<ActorKeys>, Fault> {
        if bytes > FILE_BYTES_MAX {
            return Err(Fault::Text(format!("a file of {bytes} bytes is no key")));
        }
        let text = std::fs::read(path).map_err(|error| Fault::Read(error.to_string()))?;
        let text = String::from_utf8(text).map_err(|_| Fault::Text("it is not text".to_owned()))?;
        let id = self.template.as_ref().map(|template| template.replace(PLACE, &actor.to_string()));
        ActorKeys::from_pem(&text, id.as_deref()).map(Arc::new).map_err(|error| Fault::Text(error.to_string()))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Algorithm;
    use crate::testing::{ED25519_PEM, RSA_PKCS8_PEM};

    const ACTOR: Uuid = Uuid::from_u128(7);

    fn write(directory: &Path, text: &str) {
        std::fs::write(directory.join(format!("{ACTOR}.pem")), text).expect("a writable directory");
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again_and_one_that_goes_signs_no_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let template = Some("https://our.example/users/{actor}#main-key".to_owned());
        let keys = PemDirectory::open(directory.path(), template).expect("a directory");
        assert_eq!(keys.keys(ACTOR).await.expect_err("no file"), Error::Unknown(ACTOR));

        write(directory.path(), RSA_PKCS8_PEM);
        let first = keys.keys(ACTOR).await.expect("a key");
        let id = format!("https://our.example/users/{ACTOR}#main-key");
        assert_eq!(first.id(Algorithm::Rsa), Some(id.as_str()));
        assert!(Arc::ptr_eq(&first, &keys.keys(ACTOR).await.expect("the same")), "parsed once");

        write(directory.path(), ED25519_PEM);
        assert!(keys.keys(ACTOR).await.expect("another").id(Algorithm::Ed25519).is_some());
        write(directory.path(), "half a wri");
        assert!(keys.keys(ACTOR).await.expect("the one before").id(Algorithm::Ed25519).is_some());
        std::fs::remove_file(directory.path().join(format!("{ACTOR}.pem"))).expect("it is there");
        assert_eq!(keys.keys(ACTOR).await.expect_err("gone"), Error::Unknown(ACTOR));
    }

    #[tokio::test]
    async fn what_never_was_a_key_says_why() {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = PemDirectory::open(directory.path(), None).expect("a directory");
        write(directory.path(), RSA_PKCS8_PEM);
        let error = keys.keys(ACTOR).await.expect_err("no id").to_string();
        assert!(error.contains("has no id"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_could_not_be_read_is_read_again_though_it_did_not_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = PemDirectory::open(directory.path(), Some("https://our.example/{actor}".to_owned())).expect("one");
        let path = directory.path().join(format!("{ACTOR}.pem"));
        // A directory can't be read as a file, by root neither; then a file takes its place that looks the same.
        std::fs::create_dir(&path).expect("a writable directory");
        let facts = std::fs::metadata(&path).expect("it is there");
        let error = keys.keys(ACTOR).await.expect_err("no file").to_string();
        assert!(error.contains("can't be read"), "{error}");
        std::fs::remove_dir(&path).expect("it is there");
        let length = usize::try_from(facts.len()).expect("small");
        let padded = format!("{:1$}", ED25519_PEM, length.max(ED25519_PEM.len()));
        std::fs::write(&path, padded).expect("a writable directory");
        let file = std::fs::File::options().write(true).open(&path).expect("it is there");
        file.set_modified(facts.modified().expect("a time")).expect("it is ours");
        // On a file system that gives directories other lengths the file is a changed one, and is read for that.
        assert!(keys.keys(ACTOR).await.is_ok());
    }

    #[test]
    fn a_directory_that_is_not_there_and_a_template_for_everybody_are_refused() {
        assert!(matches!(PemDirectory::open("/nowhere", None), Err(Unreadable::Directory { .. })));
        let directory = tempfile::tempdir().expect("a directory");
        let one_for_all = Some("https://our.example/key".to_owned());
        assert!(matches!(PemDirectory::open(directory.path(), one_for_all), Err(Unreadable::Template(_))));
    }

    #[test]
    fn a_template_whose_ids_could_not_be_sent_is_refused_before_anything_is_signed_with_one() {
        let directory = tempfile::tempdir().expect("a directory");
        for odd in
            ["\"https://our.example/{actor}\"", "https://our.example/users/{actor}#main key", "https://\u{fc}/{actor}"]
        {
            let error = PemDirectory::open(directory.path(), Some(odd.to_owned())).err().expect(odd);
            assert!(matches!(&error, Unreadable::TemplateText(_)), "{error}");
            assert!(error.to_string().contains("no quotation mark"), "{error}");
        }
    }
}
