//! What is going on when the fault strikes: publishers that record, stop, and wait for their hooks.
//! The server may die under any call; that ends the scene and fails nothing.

use crate::support::live::Live;
use crate::support::publisher::Publisher;
use crate::support::user::{Script, fake};
use reqwest::{Client, Response, header};
use serde_json::Value;
use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// The hook: says when it begins and ends, and whether another one of its recording runs meanwhile. The
/// lock goes with the last process that holds it, however that ends.
pub fn hook(lasts: Duration) -> Script {
    let lasts = lasts.as_secs_f64();
    Script::new(&format!(
        "say() {{ echo \"$1 $ONRECORD_ID $ONRECORD_ATTEMPT\" >> \"$here/log\"; }}\n\
         exec 9> \"$here/$ONRECORD_ID.lock\"\n\
         flock -n 9 || say overlap\n\
         say begin; sleep {lasts}; say end"
    ))
}

/// A publisher of fake media, over WHIP.
pub struct Actor {
    pub stream: String,
    live: Live,
    offer: String,
}

impl Actor {
    pub async fn new(stream: &str) -> Self {
        let (live, offer) = Live::start(fake).await;
        Self { stream: stream.to_owned(), live, offer }
    }

    /// Publishes so many frames and stops; gives the sealed recording.
    pub async fn record(&self, base: &str, frames: usize) -> reqwest::Result<Value> {
        let client = Client::new();
        let request = client.post(format!("{base}/whip/{}", self.stream));
        let request = request.header(header::CONTENT_TYPE, "application/sdp").body(self.offer.clone());
        let answer = accepted(request.send().await?).await;
        let session = answer.headers()[header::LOCATION].to_str().unwrap().to_owned();
        self.live.accept(&answer.text().await?).await;
        while self.frames().await < frames {
            tokio::time::sleep(LOOK).await;
        }
        self.live.with(|publisher| publisher.stop_sending()).await;
        accepted(client.delete(format!("{base}{session}")).send().await?).await;
        until(base, |recording| recording["stream"] == self.stream && recording["state"] == "sealed").await
    }

    /// How many it has sent.
    pub async fn frames(&self) -> usize {
        self.live.with(|publisher| publisher.sent().len()).await
    }

    /// Leaves; gives what it noted.
    pub async fn leave(self) -> (String, Publisher) {
        (self.stream, self.live.stop().await)
    }
}

/// Waits for the hook of a recording.
pub async fn hook_has_run(base: &str, recording: &Value) -> reqwest::Result<Value> {
    until(base, |other| other["id"] == recording["id"] && other["hook"]["state"] == "done").await
}

/// Removes a recording.
pub async fn delete(base: &str, id: &str) -> reqwest::Result<()> {
    accepted(Client::new().delete(format!("{base}/api/recordings/{id}")).send().await?).await;
    Ok(())
}

/// Waits for a recording of which something is true.
async fn until(base: &str, is_it: impl Fn(&Value) -> bool) -> reqwest::Result<Value> {
    loop {
        let all: Vec<Value> = reqwest::get(format!("{base}/api/recordings")).await?.json().await?;
        if let Some(recording) = all.into_iter().find(&is_it) {
            return Ok(recording);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A dying server says nothing; what it says must not be no.
async fn accepted(response: Response) -> Response {
    assert!(
        response.status().is_success(),
        "{}: {}",
        response.status(),
        response.text().await.unwrap_or_default()
    );
    response
}
