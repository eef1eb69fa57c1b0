//! A bare tonic server that gives the bytes of one real answer whatever it is asked: what the transport alone costs.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo,
    PutResult, SchemaResult, Ticket,
};
use futures::{Stream, StreamExt, stream};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::Result;

/// Serves until it is killed.
pub(crate) async fn serve(dir: &Path, port_file: &Path) -> Result<()> {
    let read = |name: &str| -> Result<Arc<[FlightData]>> {
        let bytes = std::fs::read(dir.join(name))?;
        let (mut rest, mut messages) = (&bytes[..], vec![]);
        while !rest.is_empty() {
            messages.push(FlightData::decode_length_delimited(&mut rest)?);
        }
        Ok(messages.into())
    };
    let echo = Echo { exchanges: [read("exchange_1.bin")?, read("exchange_100.bin")?], ticket: read("ticket_1.bin")? };
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let incoming = tonic::transport::server::TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?).with_nodelay(Some(true));
    std::fs::write(port_file, format!("127.0.0.1:{port}\n"))?;
    tonic::transport::Server::builder().add_service(FlightServiceServer::new(echo)).serve_with_incoming(incoming).await?;
    Ok(())
}

struct Echo {
    /// For one key and for more.
    exchanges: [Arc<[FlightData]>; 2],
    ticket: Arc<[FlightData]>,
}

type Out<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;
type Answer<T> = std::result::Result<Response<T>, Status>;

fn no<T>() -> Answer<T> {
    Err(Status::unimplemented("the echo answers DoGet and DoExchange"))
}

#[tonic::async_trait]
impl FlightService for Echo {
    type HandshakeStream = Out<HandshakeResponse>;
    type ListFlightsStream = Out<FlightInfo>;
    type DoGetStream = Out<FlightData>;
    type DoPutStream = Out<PutResult>;
    type DoActionStream = Out<arrow_flight::Result>;
    type ListActionsStream = Out<ActionType>;
    type DoExchangeStream = Out<FlightData>;

    async fn do_get(&self, _: Request<Ticket>) -> Answer<Self::DoGetStream> {
        let messages = self.ticket.clone();
        Ok(Response::new(Box::pin(stream::iter((0..messages.len()).map(move |i| Ok(messages[i].clone()))))))
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        let (one, many) = (self.exchanges[0].clone(), self.exchanges[1].clone());
        Ok(Response::new(Box::pin(request.into_inner().enumerate().map(move |(i, message)| {
            let message = message?;
            if i == 0 {
                return Ok(one[0].clone());
            }
            // A hundred keys take some hundred bytes more than one.
            let answer = if message.data_body.len() > 256 { &many } else { &one };
            Ok(answer[1].clone())
        }))))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Answer<Self::HandshakeStream> {
        no()
    }
    async fn list_flights(&self, _: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        no()
    }
    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        no()
    }
    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<PollInfo> {
        no()
    }
    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        no()
    }
    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        no()
    }
    async fn do_action(&self, _: Request<Action>) -> Answer<Self::DoActionStream> {
        no()
    }
    async fn list_actions(&self, _: Request<Empty>) -> Answer<Self::ListActionsStream> {
        no()
    }
}
