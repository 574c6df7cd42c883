//! Both ways to signal, as a client has them: WHIP over HTTP, and the `/signal` WebSocket.

use futures_util::{SinkExt, StreamExt};
use reqwest::{Client, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// The server said no.
#[derive(Debug)]
pub struct Refused {
    pub status: StatusCode,
    pub body: String,
}

/// A WHIP session.
pub struct Whip {
    client: Client,
    /// Absolute.
    pub location: String,
    /// With its quotes.
    pub etag: String,
}

impl Whip {
    /// Offers; gives the session and the answer.
    pub async fn publish(url: &str, offer: &str) -> Result<(Self, String), Refused> {
        Self::publish_as(url, offer, None).await
    }

    /// The same with a bearer token.
    pub async fn publish_as(url: &str, offer: &str, bearer: Option<&str>) -> Result<(Self, String), Refused> {
        Self::publish_by(Client::new(), url, offer, bearer).await
    }

    /// The same by a client that others share: making one takes as long as a handshake.
    pub async fn publish_by(
        client: Client,
        url: &str,
        offer: &str,
        bearer: Option<&str>,
    ) -> Result<(Self, String), Refused> {
        let mut request =
            client.post(url).header(header::CONTENT_TYPE, "application/sdp").body(offer.to_owned());
        if let Some(token) = bearer {
            request = request.bearer_auth(token);
        }
        let response = accepted(request.send().await.unwrap(), StatusCode::CREATED).await?;
        let location = header_of(&response, header::LOCATION);
        let location = response.url().join(&location).unwrap().to_string();
        let etag = header_of(&response, header::ETAG);
        Ok((Self { client, location, etag }, response.text().await.unwrap()))
    }

    /// Candidates, as `application/trickle-ice-sdpfrag`.
    pub async fn trickle(&self, fragment: &str) -> Result<(), Refused> {
        let response = self.patch(&self.etag, fragment).await;
        accepted(response, StatusCode::NO_CONTENT).await.map(drop)
    }

    /// A new ICE generation; gives the server's fragment.
    pub async fn restart(&mut self, fragment: &str) -> Result<String, Refused> {
        let response = accepted(self.patch("*", fragment).await, StatusCode::OK).await?;
        self.etag = header_of(&response, header::ETAG);
        Ok(response.text().await.unwrap())
    }

    async fn patch(&self, if_match: &str, fragment: &str) -> Response {
        let request = self.client.request(Method::PATCH, &self.location);
        let request = request.header(header::IF_MATCH, if_match);
        let request = request.header(header::CONTENT_TYPE, "application/trickle-ice-sdpfrag");
        request.body(fragment.to_owned()).send().await.unwrap()
    }

    /// Ends the session.
    pub async fn delete(self) -> Result<(), Refused> {
        let response = self.client.delete(&self.location).send().await.unwrap();
        let status = response.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(Refused { status, body: response.text().await.unwrap() })
        }
    }
}

async fn accepted(response: Response, expected: StatusCode) -> Result<Response, Refused> {
    let status = response.status();
    if status == expected {
        return Ok(response);
    }
    Err(Refused { status, body: response.text().await.unwrap() })
}

fn header_of(response: &Response, name: header::HeaderName) -> String {
    let value = response.headers().get(&name).unwrap_or_else(|| panic!("no {name} in the response"));
    value.to_str().unwrap().to_owned()
}

/// A `/signal` socket.
pub struct Signal {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Signal {
    /// How long the server may be silent when an answer is due.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// `url` begins with `ws://`.
    pub async fn connect(url: &str) -> Self {
        let (socket, _) = tokio_tungstenite::connect_async(url).await.expect("the server upgrades");
        Self { socket }
    }

    pub async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.try_send(text).await.unwrap();
    }

    /// Sends to a server that may have hung up.
    pub async fn try_send(&mut self, text: &str) -> Result<(), tungstenite::Error> {
        self.socket.send(Message::text(text)).await
    }

    /// The next message, or the close code.
    pub async fn next(&mut self) -> Result<Value, Option<u16>> {
        // Pings are no answer.
        let deadline = tokio::time::Instant::now() + Self::PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.socket.next()).await;
            match next.unwrap_or_else(|_| panic!("silence for {:?}", Self::PATIENCE)) {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next message of these types; others are passed over.
    pub async fn next_of(&mut self, types: &[&str]) -> Value {
        loop {
            let message = self.next().await.expect("the socket stays open");
            if types.iter().any(|wanted| message["type"] == **wanted) {
                return message;
            }
        }
    }

    /// Offers; gives the `answer` or the `error`.
    pub async fn publish(&mut self, stream: &str, offer: &str) -> Result<Value, Value> {
        self.send(&json!({ "type": "publish", "stream": stream, "sdp": offer })).await;
        let reply = self.next_of(&["answer", "error"]).await;
        if reply["type"] == "answer" { Ok(reply) } else { Err(reply) }
    }

    /// Waits for a status of this name.
    pub async fn status(&mut self, wanted: &str) -> Value {
        loop {
            let message = self.next_of(&["status", "error"]).await;
            assert_ne!(message["type"], "error", "{message}");
            if message["status"] == wanted {
                return message;
            }
            let over = message["status"] == "FAILED" || message["status"] == "UNPUBLISHED";
            assert!(!over, "not {wanted}: {message}");
        }
    }

    /// Ends the publication; gives the status that carries the recording.
    pub async fn stop(&mut self, stream: &str) -> Value {
        self.send(&json!({ "type": "stop", "stream": stream })).await;
        self.status("UNPUBLISHED").await
    }
}
