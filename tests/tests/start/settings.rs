//! Wrong settings: exit 64 and one line that names the variable, before anything is bound, and never a secret's value.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::process::{Ended, Taken, right, run, set, unset};

/// Nobody listens there.
const NO_BROKER: &str = "nats://127.0.0.1:1";

const INBOX_RECEIVER: &str = "inbox-receiver";
const BATCH_SENDER: &str = "batch-sender";
const BATCH_RECEIVER: &str = "batch-receiver";

/// One variable of one service set to a value that it can't have.
const WRONG: [(&str, &str, &str); 70] = [
    (INBOX_RECEIVER, "FED_LISTEN", "8080"),
    (INBOX_RECEIVER, "FED_SOURCES", "a.test,b..test"),
    (INBOX_RECEIVER, "FED_DESTINATIONS", "*.test"),
    (INBOX_RECEIVER, "FED_LANES_MAX", "0"),
    (INBOX_RECEIVER, "FED_INBOX_PATHS", "inbox"),
    (INBOX_RECEIVER, "FED_PUBLIC_SCHEME", "ftp"),
    (INBOX_RECEIVER, "FED_OPEN_FRONT", "perhaps"),
    (INBOX_RECEIVER, "FED_ACTIVITY_WITHOUT_ID", "maybe"),
    (INBOX_RECEIVER, "FED_BODY_MAX", "1MB"),
    (INBOX_RECEIVER, "FED_BODY_MAX", "0"),
    (INBOX_RECEIVER, "FED_STREAM_BYTES_MAX", "0"),
    (INBOX_RECEIVER, "FED_PUBLISH_TIMEOUT", "0"),
    (INBOX_RECEIVER, "FED_BODY_TIMEOUT", "0s"),
    (INBOX_RECEIVER, "FED_HEADERS_MAX", "1GiB"),
    (INBOX_RECEIVER, "FED_HEADER_COUNT_MAX", "many"),
    (INBOX_RECEIVER, "FED_HEADER_COUNT_MAX", "256"),
    (INBOX_RECEIVER, "FED_INFLIGHT_BYTES", "1KiB"),
    (INBOX_RECEIVER, "FED_PUBLISH_TIMEOUT", "soon"),
    (INBOX_RECEIVER, "FED_BODY_TIMEOUT", "-1"),
    (INBOX_RECEIVER, "FED_BODY_TIMEOUT", "18446744073709551615"),
    (INBOX_RECEIVER, "FED_SIGNATURE_WINDOW", "366days"),
    (INBOX_RECEIVER, "FED_HEADER_TIMEOUT", "1 fortnight"),
    (INBOX_RECEIVER, "FED_CONNECTIONS_MAX", "-1"),
    (INBOX_RECEIVER, "FED_RETRY_AFTER", "later"),
    (INBOX_RECEIVER, "FED_SIGNATURE_WINDOW", "55 minuten"),
    (INBOX_RECEIVER, "FED_SIGNATURE_MARGIN", "5 minuten"),
    (INBOX_RECEIVER, "FED_SIGNATURE_MARGIN", "55m"),
    (INBOX_RECEIVER, "FED_LANE_AGE_MAX", "old"),
    (INBOX_RECEIVER, "FED_LANE_AGE_MAX", "50m"),
    (INBOX_RECEIVER, "FED_LANE_MESSAGES_MAX", "0"),
    (INBOX_RECEIVER, "FED_STREAM_BYTES_MAX", "4GB"),
    (INBOX_RECEIVER, "HTTP_ALLOWED_IPS", "192.0.2.300"),
    (INBOX_RECEIVER, "HTTP_TRUSTED_PROXIES", "proxy"),
    (INBOX_RECEIVER, "NATS_URL", "gopher://127.0.0.1"),
    (INBOX_RECEIVER, "NATS_CREDS_FILE", "/does/not/exist"),
    (INBOX_RECEIVER, "NATS_CA_FILE", "/does/not/exist"),
    (INBOX_RECEIVER, "NATS_CONNECT_TIMEOUT", "x"),
    (INBOX_RECEIVER, "NATS_USER", "without-a-password"),
    (INBOX_RECEIVER, "FED_STREAMS", "maybe"),
    (INBOX_RECEIVER, "FED_STREAM_REPLICAS", "2"),
    (INBOX_RECEIVER, "FED_ADMIN_LISTEN", "localhost"),
    (INBOX_RECEIVER, "FED_SHUTDOWN_GRACE", "20 sec onds"),
    (INBOX_RECEIVER, "LOG_FORMAT", "xml"),
    (INBOX_RECEIVER, "LOG_LEVEL", "a=b=c"),
    (INBOX_RECEIVER, "OTEL_SDK_DISABLED", "perhaps"),
    (BATCH_SENDER, "FED_SITE", "singapore 1"),
    (BATCH_SENDER, "BATCH_RECEIVER_DOMAIN", "far test"),
    (BATCH_SENDER, "BATCH_RECEIVER_PROTOCOL", "ftp"),
    (BATCH_SENDER, "BATCH_RECEIVER_PATH", "batch"),
    (BATCH_SENDER, "HTTP_BATCH_SIZE", "0"),
    (BATCH_SENDER, "HTTP_USER_AGENT", "a\u{1}b"),
    (BATCH_SENDER, "FED_BATCH_BYTES", "big"),
    (BATCH_SENDER, "FED_BATCH_COMPRESSION", "lz4"),
    (BATCH_SENDER, "FED_ANSWER_TIMEOUT", "x"),
    (BATCH_SENDER, "FED_BACKOFF_MAX", "1ms"),
    (BATCH_SENDER, "FED_TRIM_INTERVAL", "x"),
    (BATCH_SENDER, "FED_ANSWER_TIMEOUT", "0"),
    (BATCH_SENDER, "FED_LANES_MAX", "0"),
    (BATCH_SENDER, "NATS_URL", "nats://a b"),
    (BATCH_RECEIVER, "FED_LISTEN", "localhost:8081"),
    (BATCH_RECEIVER, "FED_BATCH_PATH", "batch"),
    (BATCH_RECEIVER, "FED_DESTINATIONS", "home.test,*"),
    (BATCH_RECEIVER, "FED_INBOX_PATHS", "/inbox?x"),
    (BATCH_RECEIVER, "OVERRIDE_DESTINATION_PROTOCOL", "ftp"),
    (BATCH_RECEIVER, "OVERRIDE_DESTINATION_DOMAIN", "bob@lemmy"),
    (BATCH_RECEIVER, "FED_BATCH_ITEMS_MAX", "0"),
    (BATCH_RECEIVER, "FED_BATCH_BODY_MAX", "1MiB"),
    (BATCH_RECEIVER, "FED_INFLIGHT_BYTES", "16MiB"),
    (BATCH_RECEIVER, "FED_DELIVERY_TIMEOUT", "0"),
    (BATCH_RECEIVER, "HTTP_ALLOWED_IPS", "everybody"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_value_is_one_line_that_names_its_variable_and_nothing_is_bound() {
    let taken = Taken::new();
    for (service, name, value) in WRONG {
        let mut env = right(service, &taken, NO_BROKER);
        set(&mut env, name, value);
        let ended = run(service, &[], env).await;
        check(service, name, &ended);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_no_text_is_not_taken_for_none() {
    let taken = Taken::new();
    let no_text = || OsString::from_vec(vec![b'1', 0xff]);
    let cases = [
        (INBOX_RECEIVER, "HTTP_ALLOWED_IPS"),
        (INBOX_RECEIVER, "FED_BODY_MAX"),
        (BATCH_SENDER, "HTTP_BATCH_AUTHORIZATION"),
        (BATCH_RECEIVER, "HTTP_BATCH_AUTHORIZATION"),
    ];
    for (service, name) in cases {
        let mut env = right(service, &taken, NO_BROKER);
        set(&mut env, name, no_text());
        check(service, name, &run(service, &[], env).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_required_is_named_when_it_is_missing_or_empty() {
    let taken = Taken::new();
    let required = [
        (INBOX_RECEIVER, "FED_SOURCES"),
        (INBOX_RECEIVER, "FED_DESTINATIONS"),
        (BATCH_SENDER, "FED_SITE"),
        (BATCH_SENDER, "BATCH_RECEIVER_DOMAIN"),
        (BATCH_RECEIVER, "FED_DESTINATIONS"),
    ];
    for (service, name) in required {
        for value in [None, Some(""), Some("  ")] {
            let mut env = right(service, &taken, NO_BROKER);
            unset(&mut env, name);
            env.extend(value.map(|value| (name.to_owned(), value.into())));
            let ended = run(service, &[], env).await;
            check(service, name, &ended);
            assert!(ended.stderr.contains("is required"), "{ended:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_open_must_be_asked_for_in_so_many_words() {
    let taken = Taken::new();
    let cases = [
        (INBOX_RECEIVER, "HTTP_ALLOWED_IPS", "FED_OPEN_FRONT"),
        (BATCH_RECEIVER, "HTTP_BATCH_AUTHORIZATION", "FED_OPEN_RECEIVER"),
    ];
    for (service, name, open) in cases {
        let mut env = right(service, &taken, NO_BROKER);
        unset(&mut env, name);
        let ended = run(service, &[], env.clone()).await;
        check(service, name, &ended);
        assert!(ended.stderr.contains(&format!("{open}=yes")), "{ended:?}");
        // Asked for, it gets further: to the broker, or to the port.
        set(&mut env, open, "yes");
        let ended = run(service, &[], env).await;
        assert_eq!(ended.code, Some(69), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_ever_shows_a_secret() {
    const SECRET: &str = "hunter2";
    let taken = Taken::new();
    let file = std::env::temp_dir().join(format!("fedstream-start-{}", std::process::id()));
    std::fs::write(&file, format!("{SECRET}\u{7}\n")).unwrap();
    let file_name = file.to_str().unwrap();
    // What else is wrong decides; the secret is in the environment or in the file each time.
    type Settings<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, &str, Settings<'_>); 7] = [
        (BATCH_SENDER, "HTTP_BATCH_AUTHORIZATION", &[("HTTP_BATCH_AUTHORIZATION", "hunter2\u{7}")]),
        (BATCH_SENDER, "HTTP_BATCH_AUTHORIZATION", &[("HTTP_BATCH_AUTHORIZATION_FILE", file_name)]),
        (
            BATCH_SENDER,
            "HTTP_BATCH_AUTHORIZATION",
            &[("HTTP_BATCH_AUTHORIZATION", SECRET), ("HTTP_BATCH_AUTHORIZATION_FILE", file_name)],
        ),
        (BATCH_SENDER, "FED_SITE", &[("HTTP_BATCH_AUTHORIZATION", SECRET), ("FED_SITE", "a b")]),
        (BATCH_RECEIVER, "HTTP_BATCH_AUTHORIZATION", &[("HTTP_BATCH_AUTHORIZATION", "hunter2\nx")]),
        (INBOX_RECEIVER, "NATS_PASSWORD", &[("NATS_USER", "me"), ("NATS_PASSWORD", "hunter2\nx")]),
        (INBOX_RECEIVER, "NATS_URL", &[("NATS_URL", "nats://me:hunter2@a b")]),
    ];
    for (service, name, settings) in cases {
        let mut env = right(service, &taken, NO_BROKER);
        settings.iter().for_each(|(name, value)| set(&mut env, name, *value));
        let ended = run(service, &[], env).await;
        check(service, name, &ended);
        assert!(!format!("{ended:?}").contains(SECRET), "{ended:?}");
    }
    std::fs::remove_file(file).unwrap();

    // A secret that is right, and a broker that is not there: it is in no log line of the tries either.
    let mut env = right(BATCH_SENDER, &taken, "nats://me:hunter2@127.0.0.1:1");
    set(&mut env, "HTTP_BATCH_AUTHORIZATION", SECRET);
    set(&mut env, "LOG_LEVEL", "trace");
    let ended = run(BATCH_SENDER, &[], env).await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stdout.contains("no broker yet") && !format!("{ended:?}").contains(SECRET), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_of_the_keyboard_is_told_and_does_not_stop_it() {
    let taken = Taken::new();
    let mut env = right(INBOX_RECEIVER, &taken, NO_BROKER);
    set(&mut env, "FED_BODYMAX", "1MiB");
    let ended = run(INBOX_RECEIVER, &[], env).await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(
        ended.stderr.contains("warning: FED_BODYMAX") && ended.stderr.contains("did you mean FED_BODY_MAX?"),
        "{ended:?}"
    );
}

/// Exit 64, one line that begins with the variable, nothing logged before.
fn check(service: &str, name: &str, ended: &Ended) {
    assert_eq!(ended.code, Some(64), "{service} {name}: {ended:?}");
    let line = ended.line(service);
    assert!(line.starts_with(name), "{service} {name}: {line}");
    assert_eq!(ended.stdout, "", "{service} {name}");
}
