//! The whole of it with a proxy at either end.

use std::time::Duration;

use fedstream_tests::door::Door;
use fedstream_tests::instance::Instance;
use fedstream_tests::ledger::Ledger;
use fedstream_tests::link::Link;
use fedstream_tests::pipeline::{Builder, Pipeline, Which};
use fedstream_tests::sender::Sender;

use crate::proxy::{Changes, Kind, Proxy, Side, upstream};
use crate::tls::{Authority, terminate, tunnel};

/// The destination, as the examples name it.
pub const NAME: &str = "my.instance";

/// The sending instance, and the address that it comes from.
pub const SOURCE: &str = "a.test";
pub const WANTED: &str = "127.0.0.2";
const STRANGER: &str = "127.0.0.3";

/// Both halves, a proxy before each, and the real instance beside the front.
pub struct Site {
    /// A sender's way in, from the wanted address.
    pub wanted: Door,
    /// The same from another address.
    pub stranger: Door,
    _front: Proxy,
    pub pipeline: Pipeline,
    /// The ocean, between batch-sender and the back's proxy.
    pub _ocean: Link,
    pub back: Proxy,
    /// Where everything goes that is not for fedstream. It is not the instance behind batch-receiver, to tell them apart.
    pub real: Instance,
    _real_tls: Door,
    pub authority: Authority,
}

/// A pipeline for [`Site::start`].
pub fn pipeline() -> Builder {
    Pipeline::builder()
        .source(SOURCE)
        .source("b.test")
        .destination(NAME)
        .env(Which::InboxReceiver, "FED_OPEN_FRONT", "no")
        .env(Which::InboxReceiver, "HTTP_ALLOWED_IPS", WANTED)
        .env(Which::InboxReceiver, "HTTP_TRUSTED_PROXIES", "127.0.0.1")
        .without(Which::BatchSender)
}

impl Site {
    /// Everything but batch-sender, which has its address and waits to be started.
    pub async fn start(front: Kind, back: Kind, builder: Builder, back_changes: Changes) -> Self {
        let authority = Authority::new();
        let mut pipeline = builder.start().await.expect("the pipeline starts");
        let real = Instance::start(pipeline.keys.clone()).await.expect("an instance");
        let real_tls = terminate(&authority.issue(NAME), real.addr()).await;

        let mut changes = vec![
            upstream(8080, pipeline.front()),
            ("192.0.2.10/32".to_owned(), WANTED.to_owned()),
            ("198.51.100.7:443".to_owned(), real_tls.addr().to_string()),
        ];
        if front == Kind::Nginx {
            changes.push(("/etc/ssl/certs/ca-certificates.crt".to_owned(), authority.file().display().to_string()));
        }
        let front = Proxy::start(front, Side::Front, &authority.issue(NAME), &authority.file(), changes).await;

        // Batch-sender has to find the name.
        let mut changes =
            vec![("batch.my.instance".to_owned(), "localhost".to_owned()), upstream(8081, pipeline.batch_address())];
        changes.extend(back_changes);
        let back = Proxy::start(back, Side::Back, &authority.issue("localhost"), &authority.file(), changes).await;
        let ocean = Link::start(back.addr(), Duration::from_millis(10)).await.expect("a link");
        for (name, value) in [
            ("BATCH_RECEIVER_PROTOCOL", "https".to_owned()),
            ("BATCH_RECEIVER_DOMAIN", format!("localhost:{}", ocean.addr().port())),
            ("BATCH_RECEIVER_CA_FILE", authority.file().display().to_string()),
        ] {
            pipeline.batch_sender.set_env(name, Some(&value));
        }
        let wanted = tunnel(&authority, WANTED, NAME, front.addr()).await;
        let stranger = tunnel(&authority, STRANGER, NAME, front.addr()).await;
        Self { wanted, stranger, _front: front, pipeline, _ocean: ocean, back, real, _real_tls: real_tls, authority }
    }

    /// A source that comes from the wanted address.
    pub fn sender(&self, source: &str) -> Sender {
        let mut sender = self.pipeline.sender(source, NAME);
        sender.front = self.wanted.addr();
        sender
    }

    /// One whose activities fedstream must not see: they are not in its ledger.
    pub fn outsider(&self, way_in: &Door) -> Sender {
        Sender::new(SOURCE, NAME, way_in.addr(), &self.pipeline.keys, &Ledger::default())
    }
}
