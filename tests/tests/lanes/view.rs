//! A lane as `/lanes` of a batch-sender shows it.

use fedstream_tests::eventually::eventually;
use fedstream_tests::http1;
use fedstream_tests::process::Service;
use serde_json::Value;

use crate::SOON;

/// The whole page; `None` while nobody answers.
pub async fn page(sender: &Service) -> Option<Value> {
    Some(http1::get(sender.admin(), "/lanes").await.ok()?.json())
}

/// One lane of it; `None` while it is not on the page.
pub async fn lane(sender: &Service, name: &str) -> Option<Value> {
    page(sender).await?["lanes"].get(name).cloned()
}

/// Waits until the lane looks so, and shows it; if it never does, how it looked last.
pub async fn wait(sender: &Service, name: &str, what: &str, looks: impl Fn(&Value) -> bool) -> Value {
    let mut last = None;
    let seen = eventually(what, SOON, async || {
        last = lane(sender, name).await;
        last.clone().filter(&looks)
    });
    let seen = seen.await;
    seen.unwrap_or_else(|timeout| panic!("{timeout}; {name} looks so: {last:?}"))
}

/// Waits until the page says of the lane that it stands, in a line with these words in it.
pub async fn wait_why(sender: &Service, name: &str, words: &str) -> Value {
    wait(sender, name, &format!("the page says {words:?}"), |lane| says(lane, words)).await
}

/// Whether the page says in these words why the lane stands.
pub fn says(lane: &Value, words: &str) -> bool {
    lane["why"].as_str().is_some_and(|why| why.contains(words))
}
