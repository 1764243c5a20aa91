//! Getting in at a broker with a connection of our own: TCP, TLS where it is wanted, a name and its proof where they are wanted.

use std::fmt;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use rsasl::config::SASLConfig;
use rsasl::prelude::{Mechname, SASLClient};
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::JournalError;
use super::wire::{Request, Wire, text};
use super::{KafkaOptions, KafkaSasl, KafkaSaslMechanism, reason, unknown};
use crate::tls;

impl Request for SaslHandshakeRequest {
    const KEY: i16 = 17;
    type Response = SaslHandshakeResponse;
}

impl Request for SaslAuthenticateRequest {
    const KEY: i16 = 36;
    type Response = SaslAuthenticateResponse;
}

/// A connection's two directions, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What every connection to a broker needs.
pub struct Access {
    client_id: String,
    tls: Option<TlsConnector>,
    sasl: Option<KafkaSasl>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("tls", &self.tls.is_some()).field("sasl", &self.sasl).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the certificate authorities.
    pub fn new(options: &KafkaOptions) -> Result<Self, JournalError> {
        let connector =
            |tls: &super::KafkaTls| tls::client_config(tls.ca_file.as_deref()).map(|config| TlsConnector::from(Arc::new(config)));
        let tls = options.tls.as_ref().map(connector).transpose().map_err(|error| unknown("kafka.ca_file", &error))?;
        Ok(Self { client_id: options.client_id.clone(), tls, sasl: options.sasl.clone() })
    }

    /// A connection to one broker, ready for requests. The error names the broker and what is wrong.
    pub async fn enter(&self, broker: &str) -> Result<Wire, JournalError> {
        let failed = |what: &str, error: &dyn fmt::Display| unknown(broker, &format_args!("{what}{error}"));
        let tcp = TcpStream::connect(broker).await.map_err(|error| failed("", &error))?;
        tcp.set_nodelay(true).map_err(|error| failed("", &error))?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(connector) => {
                let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host).trim_matches(['[', ']']);
                let name = ServerName::try_from(host.to_owned()).map_err(|error| failed("tls: ", &error))?;
                Box::new(connector.connect(name, tcp).await.map_err(|error| failed("tls: ", &error))?)
            }
        };
        let mut wire = Wire::new(stream, &self.client_id);
        if let Some(sasl) = &self.sasl {
            authenticate(&mut wire, sasl)
                .await
                .map_err(|why| failed(&format!("{} as user {:?}: ", sasl.mechanism.name(), sasl.username), &why))?;
        }
        // A listener that wants another kind of connection hangs up at the first request.
        let nothing = MetadataRequest::default().with_topics(Some(Vec::new()));
        wire.call(&nothing, 5).await.map_err(|error| failed("", &reason(error)))?;
        Ok(wire)
    }
}

impl KafkaSaslMechanism {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Proves who we are; with SCRAM the broker proves in turn that it knows the password.
async fn authenticate(wire: &mut Wire, sasl: &KafkaSasl) -> Result<(), String> {
    let why = |error: &dyn fmt::Display| error.to_string();
    let name = sasl.mechanism.name();
    let offer = wire.call(&SaslHandshakeRequest::default().with_mechanism(text(name)), 1).await.map_err(reason)?;
    if let Some(error) = ResponseError::try_from_code(offer.error_code) {
        let known: Vec<_> = offer.mechanisms.iter().map(|mechanism| mechanism.as_str()).collect();
        return Err(format!("{error}; the broker knows {}", known.join(", ")));
    }
    let password = sasl.password.expose_secret().to_owned();
    let config = SASLConfig::with_credentials(None, sasl.username.clone(), password).map_err(|error| why(&error))?;
    let mechanism = Mechname::parse(name.as_bytes()).map_err(|error| why(&error))?;
    let mut exchange = SASLClient::new(config).start_suggested(&[mechanism]).map_err(|error| why(&error))?;
    let mut received: Option<Vec<u8>> = None;
    loop {
        let mut message = Vec::new();
        let state = exchange.step(received.as_deref(), &mut message).map_err(|error| why(&error))?;
        if state.has_sent_message() {
            let answer = wire.call(&SaslAuthenticateRequest::default().with_auth_bytes(message.into()), 1).await;
            let answer = answer.map_err(reason)?;
            if let Some(error) = ResponseError::try_from_code(answer.error_code) {
                return Err(answer.error_message.map_or_else(|| error.to_string(), |message| message.as_str().to_owned()));
            }
            received = Some(answer.auth_bytes.to_vec());
        }
        if state.is_finished() {
            return Ok(());
        }
    }
}
