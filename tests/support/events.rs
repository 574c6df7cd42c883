//! A client of `/api/events`.

use super::server::Server;
use super::user::SOON;
use reqwest::{Client, Response};
use serde_json::Value;
use std::time::Instant;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: String,
    pub kind: String,
    pub data: Value,
}

impl Event {
    /// `recording sealed`, `stream live`, `reset`.
    pub fn words(&self) -> String {
        format!("{} {}", self.kind, self.data["change"].as_str().unwrap_or_default()).trim().to_owned()
    }
}

/// An open connection.
pub struct Events {
    response: Response,
    unread: String,
    seen: Vec<Event>,
}

impl Events {
    pub async fn open(server: &Server) -> Self {
        Self::from(server, "", None).await
    }

    /// With a query, and from behind an event on.
    pub async fn from(server: &Server, query: &str, last: Option<&str>) -> Self {
        let mut request = Client::new().get(server.url(&format!("/api/events{query}")));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, unread: String::new(), seen: Vec::new() }
    }

    /// The next event; `None` when the server ends the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n") {
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                        .map(str::to_owned)
                };
                let (id, kind, data) = (field("id"), field("event"), field("data"));
                self.unread = rest.to_owned();
                // Else it is only to keep the connection alive.
                if let (Some(id), Some(kind), Some(data)) = (id, kind, data) {
                    let event = Event { id, kind, data: serde_json::from_str(&data).unwrap() };
                    self.seen.push(event.clone());
                    return Some(event);
                }
                continue;
            }
            let chunk = tokio::time::timeout(3 * SOON, self.response.chunk()).await;
            let chunk = chunk.unwrap_or_else(|_| panic!("no event; seen: {:#?}", self.seen)).ok()??;
            self.unread += std::str::from_utf8(&chunk).unwrap();
        }
    }

    /// Waits for an event with these words.
    pub async fn until(&mut self, words: &str) -> Event {
        let began = Instant::now();
        while let Some(event) = self.next().await {
            if event.words() == words {
                return event;
            }
            assert!(began.elapsed() < 6 * SOON, "no {words}: {:#?}", self.seen);
        }
        panic!("the events ended without {words}: {:#?}", self.seen);
    }

    /// What has been heard so far.
    pub fn words(&self) -> Vec<String> {
        self.seen.iter().map(Event::words).collect()
    }
}
