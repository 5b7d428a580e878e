//! The record of deliveries in the log, as somebody reads it who trusts nothing else. In a file of its own: the log is
//! the process's.

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use support::{Instance, Receiver, batch};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that a test can read.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("lines").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn each_delivery_is_two_lines_with_whose_it_was_and_how_it_ended() -> Result<()> {
    let written = Written::default();
    // As the process writes with LOG_FORMAT=json.
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_max_level(LevelFilter::DEBUG)
        .with_writer(written.clone())
        .finish();
    let _default = tracing::subscriber::set_default(subscriber);

    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;
    for (seqs, statuses) in [(&[1, 2, 3][..], &[202, 404, 503][..]), (&[1, 2, 3], &[200])] {
        let mut reply = receiver.post(&batch(Some(gate), 1, 0, seqs)).await?;
        for status in statuses {
            instance.asked().await?.answer(*status);
        }
        reply.lines().await?;
    }

    let text = String::from_utf8(written.0.lock().expect("lines").clone())?;
    let mut found = Vec::new();
    for line in text.lines() {
        let mut line: Value = serde_json::from_str(line)?;
        let message = line["message"].as_str().unwrap_or_default().to_owned();
        if let Some(what) = message.strip_prefix("delivery ") {
            for (field, expected) in [("level", "DEBUG"), ("lane", "b.example/a.example"), ("gate", &gate.to_string())]
            {
                assert_eq!(line[field], expected, "{line}");
            }
            assert_eq!(line["epoch"], 1, "{line}");
            let seq = line["seq"].as_u64().context("a number")?;
            assert_eq!(line["msg_id"], format!("m{seq}"), "{line}");
            found.push(json!([what, seq, line["outcome"].take()]));
        }
    }
    let expected = json!([
        ["begun", 1, null],
        ["ended", 1, "delivered"],
        ["begun", 2, null],
        ["ended", 2, "rejected"],
        ["begun", 3, null],
        ["ended", 3, "retry"],
        ["begun", 3, null],
        ["ended", 3, "delivered"],
    ]);
    assert_eq!(Value::from(found), expected, "{text}");
    Ok(())
}
