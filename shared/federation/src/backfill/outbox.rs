//! A history read over HTTP: the user's outbox, an ActivityPub OrderedCollection (Activity Streams 2.0, section 5), for an
//! application in any language.
//!
//! A collection begins with what is newest and leads to what is older by `next`; a walk wants the oldest first. So its end
//! is found once, by `last` or by following `next` to the end, and then the way goes back: by `prev` where the pages have
//! it, otherwise by the trail that was left on the way there.
//!
//! Where pages are numbered from the newest on, each post in the meantime pushes everything one place on, across the pages'
//! bounds, and each deletion pulls it back. So a cursor is the address of a page and the ids of what was handed out last: a
//! page is read on from there, and where none of them stands on it, back over `next` to where one does.
//!
//! Links are followed on the host of the configured address, whatever host they name: an application knows itself by its
//! public name, and is asked here by an internal one. So no link leads anywhere else. An activity that stands in a page as an
//! address only and is gone (404, 410) is passed over: it would be gone at the next try too.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::{Cursor, History, Page, Unreadable};
use crate::attempt::{Client, ClientError, Limits, Setup};
use crate::guard::Guard;
use crate::lanes::authority_of;

/// What a template has in place of the user's id.
const PLACE: &str = "{owner}";

/// Pages on the way to the end. Their addresses are kept: some MB at worst.
const TRAIL_MAX: usize = 20_000;

/// Users whose trail is kept at a time.
const TRAILS_MAX: usize = 64;

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

    /// A document that stands in another one, or is to be fetched.
    async fn follow(&self, outbox: &Url, link: &Value) -> Result<Option<(String, Value)>, Unreadable> {
        match link {
            Value::String(address) => {
                let url = on_host_of(outbox, address)?;
                Ok(Some((url.to_string(), self.get(&url).await?)))
            }
            Value::Object(members) => {
                let id = members.get("id").and_then(Value::as_str).unwrap_or_default();
                Ok(Some((on_host_of(outbox, id)?.to_string(), link.clone())))
            }
            _ => Ok(None),
        }
    }

    /// The oldest page.
    async fn oldest(&self, owner: Uuid, outbox: &Url) -> Result<Option<(String, Value)>, Unreadable> {
        let collection = self.get(outbox).await?;
        if let Some(last) = self.follow(outbox, &collection["last"]).await?
            && address(&last.1["prev"]).is_some()
        {
            return Ok(Some(last));
        }
        match self.follow(outbox, &collection["first"]).await? {
            Some(first) => self.to_the_end(owner, outbox, first).await.map(Some),
            None => Ok(Some((outbox.to_string(), collection))), // a small one without pages
        }
    }

    /// Follows `next` and remembers the way back.
    async fn to_the_end(
        &self,
        owner: Uuid,
        outbox: &Url,
        first: (String, Value),
    ) -> Result<(String, Value), Unreadable> {
        let mut trail = HashMap::new();
        let mut page = first;
        while let Some(next) = self.follow(outbox, &page.1["next"]).await? {
            if next.0 == page.0 || trail.contains_key(&next.0) || trail.len() >= TRAIL_MAX {
                return Err(Unreadable(format!("the pages of {outbox} don't come to an end")));
            }
            trail.insert(next.0.clone(), page.0);
            page = next;
        }
        let mut trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
        if trails.len() >= TRAILS_MAX && !trails.contains_key(&owner) {
            trails.clear(); // those on their way find theirs again
        }
        trails.insert(owner, trail);
        Ok(page)
    }

    /// The page that is one newer; none at the newest.
    async fn newer(&self, owner: Uuid, outbox: &Url, page: &(String, Value)) -> Result<Option<String>, Unreadable> {
        if let Some(prev) = address(&page.1["prev"]) {
            return Ok(Some(on_host_of(outbox, prev)?.to_string()));
        }
        if let Some(known) = self.known_newer(owner, &page.0) {
            return Ok(Some(known));
        }
        // The newest has no newer one; any other without a link was met in another life of this process.
        let collection = self.get(outbox).await?;
        match self.follow(outbox, &collection["first"]).await? {
            Some(first) if first.0 != page.0 => {
                self.to_the_end(owner, outbox, first).await?;
                Ok(self.known_newer(owner, &page.0))
            }
            _ => Ok(None),
        }
    }

    fn known_newer(&self, owner: Uuid, page: &str) -> Option<String> {
        let trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
        trails.get(&owner)?.get(page).cloned()
    }

    /// What is newer than what was handed out last, to the top of this page; the newest first.
    async fn since(&self, outbox: &Url, page: &Value, last: &[String]) -> Result<Vec<Value>, Unreadable> {
        let mut items = items(outbox, page)?;
        let (of_this, mut looked_at, mut page) = (items.len(), 0, page.clone());
        for _ in 0..=BACK_MAX {
            let known = |item: &Value| address(item).is_some_and(|id| last.iter().any(|last| last == id));
            if let Some(at) = items[looked_at..].iter().position(known) {
                items.truncate(looked_at + at);
                return Ok(items);
            }
            if last.is_empty() {
                break;
            }
            let Some((_, older)) = self.follow(outbox, &page["next"]).await? else { break };
            looked_at = items.len();
            items.extend(self::items(outbox, &older)?);
            page = older;
        }
        // All of them are gone, or what has no ids: the page as it stands.
        items.truncate(of_this);
        Ok(items)
    }

    /// The activities themselves, the oldest first.
    async fn activities(&self, outbox: &Url, items: Vec<Value>) -> Result<Vec<Value>, Unreadable> {
        let mut activities = Vec::with_capacity(items.len());
        for item in items.into_iter().rev() {
            match item {
                Value::Object(_) => activities.push(item),
                Value::String(address) => {
                    activities.extend(self.get_unless_gone(&on_host_of(outbox, &address)?).await?);
                }
                _ => {}
            }
        }
        Ok(activities)
    }
}

/// What a cursor of this history says.
#[derive(Serialize, Deserialize)]
struct Place {
    page: String,
    /// Ids of what was handed out last, the newest first.
    last: Vec<String>,
}

impl Place {
    fn read(cursor: &Cursor) -> Result<Self, Unreadable> {
        serde_json::from_str(&cursor.0).map_err(|_| Unreadable(format!("{:?} is no place in an outbox", cursor.0)))
    }

    fn cursor(&self) -> Result<Cursor, Unreadable> {
        serde_json::to_string(self).map(Cursor).map_err(|error| Unreadable(error.to_string()))
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
        let before = place.map(|place| place.last).unwrap_or_default();
        let items = self.since(&outbox, &page.1, &before).await?;
        let ids = items.iter().filter_map(address).map(str::to_owned);
        let last: Vec<String> = ids.chain(before.iter().cloned()).take(LAST_MAX).collect();
        let activities = self.activities(&outbox, items).await?;
        let next = match self.newer(owner, &outbox, &page).await? {
            Some(page) => Some(Place { page, last }.cursor()?),
            None => None,
        };
        Ok(Page { activities, next })
    }
}

/// What stands on a page, the newest first.
fn items(outbox: &Url, page: &Value) -> Result<Vec<Value>, Unreadable> {
    let items = [&page["orderedItems"], &page["items"]].into_iter().find_map(Value::as_array);
    let items = items.map(Vec::as_slice).unwrap_or_default();
    if items.len() > ITEMS_MAX {
        return Err(Unreadable(format!("a page of {outbox} has {} items", items.len())));
    }
    Ok(items.to_vec())
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
