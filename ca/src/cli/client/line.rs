//! Many requests over one connection: what moves content in pieces would spend its time on handshakes.

use bytes::Bytes;
use http::{Method, header};
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ANSWER_DEADLINE, Client, lost, problem, read};
use crate::cli::Failure;

const BYTES: &str = "application/octet-stream";
const JSON: &str = "application/json";

/// A connection that is kept, and made anew where it was cut.
pub(in crate::cli) struct Line<'c> {
    client: &'c Client,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl<'c> Line<'c> {
    pub(in crate::cli) fn new(client: &'c Client) -> Self {
        Self {
            client,
            sender: None,
        }
    }

    pub(in crate::cli) async fn get(&mut self, path: &str) -> Result<Bytes, Failure> {
        self.call(Method::GET, path, Bytes::new(), BYTES).await
    }

    pub(in crate::cli) async fn get_json<T: DeserializeOwned>(
        &mut self,
        path: &str,
    ) -> Result<T, Failure> {
        parse(&self.get(path).await?)
    }

    pub(in crate::cli) async fn put(&mut self, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        self.call(Method::PUT, path, body, BYTES).await
    }

    pub(in crate::cli) async fn put_for<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        parse(&self.put(path, body).await?)
    }

    pub(in crate::cli) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        parse(&self.call(Method::POST, path, body, BYTES).await?)
    }

    pub(in crate::cli) async fn post_json<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Usage(error.to_string()))?;
        parse(&self.call(Method::POST, path, body.into(), JSON).await?)
    }

    /// Every request here may be asked twice: what is put is named by what it is.
    async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        kind: &'static str,
    ) -> Result<Bytes, Failure> {
        let kept = self.sender.is_some();
        match self.once(method.clone(), path, body.clone(), kind).await {
            // A server may close a connection that it kept just as the next request comes.
            Err(Failure::Unreachable(_)) if kept => {
                self.sender = None;
                self.once(method, path, body, kind).await
            }
            other => other,
        }
    }

    async fn once(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        kind: &'static str,
    ) -> Result<Bytes, Failure> {
        let mut request = self.client.request(method, path, body)?;
        if let Some(stated) = request.headers_mut().get_mut(header::CONTENT_TYPE) {
            *stated = header::HeaderValue::from_static(kind);
        }
        let kept = self.sender.take().filter(|kept| !kept.is_closed());
        let mut sender = match kept {
            Some(kept) => kept,
            None => self.client.open().await?,
        };
        let sent = async {
            sender.ready().await.map_err(|error| lost(&error))?;
            let answered = sender.send_request(request).await;
            answered.map_err(|error| lost(&error))
        };
        let response = tokio::time::timeout(ANSWER_DEADLINE, sent)
            .await
            .map_err(|_| Failure::Unreachable("no answer in time".to_owned()))??;
        let good = response.status().is_success();
        let answer = read(response).await?;
        self.sender = Some(sender);
        match good {
            true => Ok(answer),
            false => Err(problem(answer)),
        }
    }
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(answer).map_err(|error| Failure::Answer(error.to_string()))
}
