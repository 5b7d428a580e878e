//! A history read over HTTP: the user's outbox, an ActivityPub OrderedCollection (Activity Streams 2.0, section 5), for an
//! application in any language.
//!
//! A collection begins with what is newest and leads to what is older by `next`; a walk wants the oldest first. So its end
//! is found once, by `last` or by following `next` to the end, and then the way goes back: by the trail that was left on
//! the way there, otherwise by `prev` where the pages have it. Where there is neither (after a restart, with addresses that have moved) the
//! way is looked for from the newest page on, to the one with what was handed out last; without that nobody says that it is the end.
//!
//! Where pages are numbered from the newest on, each post in the meantime pushes everything one place on, across the pages'
//! bounds, and each deletion pulls it back. So a cursor is the address of a page and the ids of what was handed out last: a
//! page is read on from there, and where none of them stands on it, back over `next` to where one does. That costs a second
//! request a page, and can't be had for less: such a page tells nothing of what was pushed over its lower bound.
//!
//! Where a page's address names an activity at its bound instead (`min_id=..`, `max_id=..`, as Mastodon and others have it),
//! nothing moves over that bound, and each page is read once. No other parameter is trusted: `since_id` leads past what stands between.
//!
//! Links are followed on the host of the configured address, whatever host they name: an application knows itself by its
//! public name, and is asked here by an internal one. So no link leads anywhere else. An activity that stands in a page as an
//! address only and is gone (404, 410) is passed over: it would be gone at the next try too.
//!
//! What stands in a page has the page's `@context` as a rule, and none of its own. It goes out alone, so it is given that one; else the
//! collection's, else that of Activity Streams; its own is never replaced. All three are read anew with each page: an activity
//! has the same bytes at each reading, by which the broker knows a repeat.

mod place;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::{Cursor, History, Page, Unreadable};
use crate::attempt::{Client, ClientError, Limits, Setup};
use crate::guard::Guard;
use crate::lanes::authority_of;

use place::Place;

/// What a template has in place of the user's id.
const PLACE: &str = "{owner}";

/// What an activity's terms mean (JSON-LD), and what they mean where nothing is said (Activity Streams 2.0, section 2.1).
const CONTEXT: &str = "@context";
const ACTIVITY_STREAMS: &str = "https://www.w3.org/ns/activitystreams";

/// Pages on the way to the end.
const TRAIL_MAX: usize = 20_000;

/// Pages whose newer one is kept, of all users: some 200 bytes each, of the walks that are on their way and of some before them.
const TRAILS_MAX: usize = 5 * TRAIL_MAX;

/// Activities that stand in a page as an address only, and are fetched one by one: more are no page.
const ITEMS_MAX: usize = 1_000;

/// Ids that a cursor carries: so many deletions in a row at the place where a walk is do not confuse it.
const LAST_MAX: usize = 8;

/// Pages that are read back over for them. What was posted between two pages of a walk fits into one, as a rule.
const BACK_MAX: usize = 20;

/// How an outbox is asked.
#[derive(Clone)]
pub struct OutboxSetup {
    /// The address of a user's outbox: `{owner}` stands for the user's id.
    pub template: String,
    /// `Authorization`, where the application wants one.
    pub authorization: Option<String>,
    /// The whole of one request.
    pub timeout: Duration,
    /// A page.
    pub page_bytes: usize,
}

impl fmt::Debug for OutboxSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authorization = self.authorization.as_ref().map(|_| "..");
        f.debug_struct("OutboxSetup")
            .field("template", &self.template)
            .field("authorization", &authorization)
            .field("timeout", &self.timeout)
            .field("page_bytes", &self.page_bytes)
            .finish()
    }
}

impl Default for OutboxSetup {
    fn default() -> Self {
        Self {
            template: String::new(),
            authorization: None,
            timeout: Duration::from_secs(30),
            page_bytes: 4 * 1024 * 1024,
        }
    }
}

/// It can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a URL with a user's id in it.
    #[error("{0:?} is no template of outbox URLs, for example http://127.0.0.1:3000/users/{PLACE}/outbox")]
    Template(String),
    /// A user or a password in the template: it would stand in every log line with the address.
    #[error("the template of outbox URLs has a credential in it: give it as `authorization`")]
    Credentials,
    /// It can't stand in a header. Its value is never shown.
    #[error("the credential for the outbox can't stand in a header")]
    Authorization,
    /// No HTTP client.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Histories out of outbox collections.
pub struct OutboxCollection {
    client: Client,
    template: String,
    headers: HeaderMap,
    /// Of each user, page to the one that is newer.
    trails: Mutex<HashMap<Uuid, HashMap<String, String>>>,
}

impl OutboxCollection {
    /// Asks the application at this address, which is an operator's: no guard stands before it.
    ///
    /// # Errors
    /// The template gives no URL, the credential no header, or there is no TLS.
    pub fn new(setup: OutboxSetup) -> Result<Self, Error> {
        let OutboxSetup { template, authorization, timeout, page_bytes } = setup;
        let sample = template.replace(PLACE, &Uuid::nil().to_string());
        let sample = sample.parse::<Url>();
        // First, so that no other error shows it.
        if template.contains('@')
            && sample.as_ref().map_or(true, |url| !url.username().is_empty() || url.password().is_some())
        {
            return Err(Error::Credentials);
        }
        let fits = template.contains(PLACE)
            && sample.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !fits {
            return Err(Error::Template(template));
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/activity+json"));
        if let Some(credential) = authorization {
            let mut value = HeaderValue::from_str(&credential).map_err(|_| Error::Authorization)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let limits = Limits { request: timeout, answer_bytes: page_bytes, ..Limits::default() };
        let client = Client::new(Setup { guard: Guard::development(), limits, ..Setup::default() })?;
        Ok(Self { client, template, headers, trails: Mutex::default() })
    }

    fn outbox(&self, owner: Uuid) -> Result<Url, Unreadable> {
        let text = self.template.replace(PLACE, &owner.to_string());
        text.parse().map_err(|_| Unreadable(format!("{text:?} is no URL")))
    }

    async fn get(&self, url: &Url) -> Result<Value, Unreadable> {
        self.get_unless_gone(url).await?.ok_or_else(|| Unreadable(format!("{url} is gone (404 or 410)")))
    }

    /// What is at an address; none where it is gone for good.
    async fn get_unless_gone(&self, url: &Url) -> Result<Option<Value>, Unreadable> {
        let mut headers = self.headers.clone();
        let host = authority_of(url).and_then(|host| HeaderValue::from_str(&host).ok());
        headers.insert(HOST, host.ok_or_else(|| Unreadable(format!("{url} has no host")))?);
        let (status, body) =
            self.client.get(url, headers).await.map_err(|error| Unreadable(format!("{url}: {error}")))?;
        if matches!(status, 404 | 410) {
            return Ok(None);
        }
        if !(200..300).contains(&status) {
            return Err(Unreadable(format!("{url} answered {status}")));
        }
        serde_json::from_slice(&body).map(Some).map_err(|error| Unreadable(format!("{url} is no JSON: {error}")))
    }

    /// The document that a member of another one leads to, or holds.
    async fn follow(&self, outbox: &Url, from: &Value, member: &str) -> Result<Option<(String, Value)>, Unreadable> {
        match &from[member] {
            Value::String(address) => {
                let url = on_host_of(outbox, address)?;
                Ok(Some((url.to_string(), self.get(&url).await?)))
            }
            held @ Value::Object(_) => {
                let id = held["id"].as_str().unwrap_or_default();
                Ok(Some((on_host_of(outbox, id)?.to_string(), in_context(held.clone(), from))))
            }
            _ => Ok(None),
        }
    }

    /// The oldest page.
    async fn oldest(&self, owner: Uuid, outbox: &Url) -> Result<Option<(String, Value)>, Unreadable> {
        let collection = self.get(outbox).await?;
        if let Some(last) = self.follow(outbox, &collection, "last").await?
            && address(&last.1["prev"]).is_some()
        {
            return Ok(Some(last));
        }
        match self.follow(outbox, &collection, "first").await? {
            Some(first) => self.back_to(owner, outbox, first, &HashSet::new()).await.map(|(oldest, _)| Some(oldest)),
            None => Ok(Some((outbox.to_string(), collection))), // a small one without pages
        }
    }

    /// Follows `next` from a page to the first that has one of these ids on it, else to the end, and remembers the way back. The
    /// page, and the one that led there.
    ///
    /// It is added to what is remembered: other walks of the same user are on their way by older addresses. A page's place may
    /// have moved since; what stands on it decides ([`OutboxCollection::since`]).
    async fn back_to(
        &self,
        owner: Uuid,
        outbox: &Url,
        from: (String, Value),
        ids: &HashSet<String>,
    ) -> Result<((String, Value), Option<String>), Unreadable> {
        let mut trail = HashMap::new();
        let mut page = from;
        while place_of(&page.1, ids).is_none() {
            let Some(next) = self.follow(outbox, &page.1, "next").await? else { break };
            if next.0 == page.0 || trail.contains_key(&next.0) || trail.len() >= TRAIL_MAX {
                return Err(Unreadable(format!("the pages of {outbox} don't come to an end")));
            }
            trail.insert(next.0.clone(), page.0);
            page = next;
        }
        let newer = trail.get(&page.0).cloned();
        let mut trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
        if trails.values().map(HashMap::len).sum::<usize>() + trail.len() > TRAILS_MAX {
            trails.clear(); // those on their way find theirs again
        }
        if !trail.is_empty() {
            trails.entry(owner).or_default().extend(trail);
        }
        Ok((page, newer))
    }

    /// Where it goes on after this page, of which all is handed out, and `last` of that last; none at the newest.
    ///
    /// The newest is the page that the collection begins with, or whose newest activity was handed out, and no other: one that no
    /// newer is known of was met in another life of this process, and has been moved meanwhile.
    async fn newer(
        &self,
        owner: Uuid,
        outbox: &Url,
        (address, page): (String, Value),
        by_prev: bool,
        mut last: Vec<String>,
    ) -> Result<Option<Place>, Unreadable> {
        if let Some(known) = self.known_newer(owner, &address) {
            return Ok(Some(Place { page: known, last, older: Some(address), by_prev: false }));
        }
        if let Some(prev) = self::address(&page["prev"]) {
            let prev = on_host_of(outbox, prev)?.to_string();
            return Ok(Some(Place { page: prev, last, older: Some(address), by_prev: true }));
        }
        if by_prev {
            return Ok(None);
        }
        let collection = self.get(outbox).await?;
        let first = self::address(&collection["first"]).map(|first| on_host_of(outbox, first)).transpose()?;
        if first.as_ref().map_or(address == outbox.as_str(), |first| *first.as_str() == address) {
            return Ok(None);
        }
        let first = self.follow(outbox, &collection, "first").await?.unwrap_or((outbox.to_string(), collection));
        let handed_out = ids_of(&page).chain(last.iter().map(String::as_str)).map(str::to_owned).collect();
        let ((found, on_it), newer) = self.back_to(owner, outbox, first, &handed_out).await?;
        let Some((at, id)) = place_of(&on_it, &handed_out) else {
            return Err(Unreadable(format!(
                "nothing is left in {outbox} of what was read last, so nobody knows what follows it"
            )));
        };
        if !last.iter().any(|last| last == id) {
            last.insert(0, id.to_owned());
            last.truncate(LAST_MAX);
        }
        if at > 0 {
            return Ok(Some(Place { page: found, last, older: Some(address), by_prev: false }));
        }
        Ok(newer.map(|newer| Place { page: newer, last, older: Some(found), by_prev: false }))
    }

    fn known_newer(&self, owner: Uuid, page: &str) -> Option<String> {
        let trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
        trails.get(&owner)?.get(page).cloned()
    }

    /// What is newer than what was handed out last, to the top of this page; the newest first, each once. None where that is far
    /// below this page.
    async fn since(
        &self,
        outbox: &Url,
        page: &(String, Value),
        place: &Place,
    ) -> Result<Option<Vec<Value>>, Unreadable> {
        let mut items = items(outbox, &page.1)?;
        if let Some(at) = place.position_in(&items) {
            items.truncate(at);
            return Ok(Some(items));
        }
        if place.last.is_empty() || place.adjoins(&page.0, &items) {
            return Ok(Some(items));
        }
        let (of_this, mut from) = (items.len(), page.1.clone());
        for _ in 0..BACK_MAX {
            let Some((_, older)) = self.follow(outbox, &from, "next").await? else {
                // All of them are gone, or what has no ids: the page as it stands.
                items.truncate(of_this);
                return Ok(Some(items));
            };
            let mut more = self::items(outbox, &older)?;
            let at = place.position_in(&more);
            more.truncate(at.unwrap_or(more.len()));
            // What a post pushed on between these two requests stands on both pages.
            let known: HashSet<&str> = items.iter().filter_map(address).collect();
            more.retain(|item| address(item).is_none_or(|id| !known.contains(id)));
            items.extend(more);
            if at.is_some() {
                return Ok(Some(items));
            }
            from = older;
        }
        Ok(None)
    }

    /// The activities themselves, the oldest first, each with a context.
    async fn activities(&self, outbox: &Url, items: Vec<Value>) -> Result<Vec<Value>, Unreadable> {
        let mut activities = Vec::with_capacity(items.len());
        let assumed = json!({ CONTEXT: ACTIVITY_STREAMS });
        let is_bare = |item: &Value| item.as_object().is_some_and(|members| !members.contains_key(CONTEXT));
        // Their page has none. A request more for each such page, also where the collection was in hand: the next life of this
        // process may begin with this page.
        let collection = if items.iter().any(is_bare) { self.get(outbox).await? } else { Value::Null };
        for item in items.into_iter().rev() {
            match item {
                Value::Object(_) => activities.push(in_context(in_context(item, &collection), &assumed)),
                Value::String(address) => {
                    let found = self.get_unless_gone(&on_host_of(outbox, &address)?).await?;
                    activities.extend(found.map(|activity| in_context(activity, &assumed)));
                }
                _ => {}
            }
        }
        Ok(activities)
    }
}

#[async_trait]
impl History for OutboxCollection {
    async fn page(&self, owner: Uuid, at: Option<&Cursor>) -> Result<Page, Unreadable> {
        let outbox = self.outbox(owner)?;
        let place = at.map(Place::read).transpose()?;
        let page = match &place {
            Some(place) => {
                let url = on_host_of(&outbox, &place.page)?;
                Some((url.to_string(), self.get(&url).await?))
            }
            None => self.oldest(owner, &outbox).await?,
        };
        let Some(page) = page else { return Ok(Page::default()) };
        let place = place.unwrap_or_default();
        let items = match self.since(&outbox, &page, &place).await? {
            Some(items) => items,
            // A `prev` that leads past what stands between (`since_id`), or pages of posts meanwhile: on from where it was.
            None => {
                let handed_out = place.last.iter().cloned().collect();
                let (found, _) = self.back_to(owner, &outbox, page.clone(), &handed_out).await?;
                if place_of(&found.1, &handed_out).is_some() {
                    let next = Place { page: found.0, by_prev: false, ..place }.cursor()?;
                    return Ok(Page { activities: Vec::new(), next: Some(next) });
                }
                items(&outbox, &page.1)? // all of them are gone
            }
        };
        let ids = items.iter().filter_map(address).map(str::to_owned);
        let last: Vec<String> = ids.chain(place.last.iter().cloned()).take(LAST_MAX).collect();
        let activities = self.activities(&outbox, items).await?;
        let next = self.newer(owner, &outbox, page, place.by_prev, last).await?;
        Ok(Page { activities, next: next.map(|next| next.cursor()).transpose()? })
    }
}

/// What stands on a page, the newest first.
fn items(outbox: &Url, page: &Value) -> Result<Vec<Value>, Unreadable> {
    let items = [&page["orderedItems"], &page["items"]].into_iter().find_map(Value::as_array);
    let items = items.map(Vec::as_slice).unwrap_or_default();
    if items.len() > ITEMS_MAX {
        return Err(Unreadable(format!("a page of {outbox} has {} items", items.len())));
    }
    Ok(items.iter().map(|item| in_context(item.clone(), page)).collect())
}

/// What stands on a page: the ids, the newest first.
fn ids_of(page: &Value) -> impl Iterator<Item = &str> {
    let items = [&page["orderedItems"], &page["items"]].into_iter().find_map(Value::as_array);
    items.into_iter().flatten().filter_map(address)
}

/// The newest of these ids that stands on a page, and how many are above it.
fn place_of<'p>(page: &'p Value, ids: &HashSet<String>) -> Option<(usize, &'p str)> {
    ids_of(page).enumerate().find(|(_, id)| ids.contains(*id))
}

/// What stands in a document has the document's context, and needs one of its own where it goes out alone.
fn in_context(mut held: Value, document: &Value) -> Value {
    if let Value::Object(members) = &mut held
        && !members.contains_key(CONTEXT)
        && let Some(context) = document.get(CONTEXT).filter(|context| !context.is_null())
    {
        members.insert(CONTEXT.to_owned(), context.clone());
    }
    held
}

/// The address that a link holds, itself or as the `id` of what it holds.
fn address(link: &Value) -> Option<&str> {
    link.as_str().or_else(|| link["id"].as_str())
}

/// A link of the application's, asked where its outbox is asked.
fn on_host_of(outbox: &Url, link: &str) -> Result<Url, Unreadable> {
    let link = outbox.join(link).map_err(|error| Unreadable(format!("{link:?} is no address: {error}")))?;
    let mut url = outbox.clone();
    url.set_path(link.path());
    url.set_query(link.query());
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_asked_where_the_outbox_is() {
        let outbox: Url = "http://app.internal:3000/users/1/outbox".parse().expect("a URL");
        for (link, asked) in [
            ("https://our.example/users/1/outbox?page=2", "http://app.internal:3000/users/1/outbox?page=2"),
            ("?max_id=7", "http://app.internal:3000/users/1/outbox?max_id=7"),
            ("http://169.254.169.254/latest#x", "http://app.internal:3000/latest"),
        ] {
            assert_eq!(on_host_of(&outbox, link).expect(link).as_str(), asked);
        }
    }

    #[test]
    fn what_stands_in_a_page_goes_out_in_its_context() {
        let outbox: Url = "http://app.internal/users/1/outbox".parse().expect("a URL");
        let contexts = |page: Value| -> Vec<Value> {
            items(&outbox, &page).expect("items").into_iter().map(|item| item[CONTEXT].clone()).collect()
        };
        let (items, security) =
            (json!([{ "id": "a" }, { "id": "b", "@context": "own" }, "c"]), json!(["x", { "y": "z" }]));
        let expected = [security.clone(), json!("own"), Value::Null];
        assert_eq!(contexts(json!({ "@context": security, "orderedItems": items })), expected);
        assert_eq!(contexts(json!({ "orderedItems": items })), [Value::Null, json!("own"), Value::Null]);
    }

    #[test]
    fn a_template_that_gives_no_url_for_each_user_is_refused() {
        let new =
            |template: &str| OutboxCollection::new(OutboxSetup { template: template.into(), ..Default::default() });
        assert!(new("http://127.0.0.1:3000/users/{owner}/outbox").is_ok());
        for odd in ["", "http://127.0.0.1:3000/outbox", "ftp://a/{owner}", "/users/{owner}"] {
            assert!(matches!(new(odd), Err(Error::Template(_))), "{odd}");
        }
    }

    #[test]
    fn a_credential_is_not_shown_and_has_no_place_in_the_template() {
        let setup = OutboxSetup { authorization: Some("Bearer geheim".into()), ..OutboxSetup::default() };
        assert!(!format!("{setup:?}").contains("geheim"), "{setup:?}");
        for template in
            ["http://app:geheim@127.0.0.1/{owner}", "http://geheim@127.0.0.1/{owner}", "http//geheim@a/{owner}"]
        {
            let refused = OutboxCollection::new(OutboxSetup { template: template.into(), ..Default::default() });
            let error = refused.err().expect("refused");
            assert!(matches!(error, Error::Credentials) && !format!("{error} {error:?}").contains("geheim"), "{error}");
        }
        let fine = OutboxSetup { template: "http://127.0.0.1/@{owner}/outbox".into(), ..Default::default() };
        assert!(OutboxCollection::new(fine).is_ok());
    }
}
