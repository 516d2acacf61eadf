//! How it came about, in sentences.
use std::net::{IpAddr, SocketAddr};

use lb_common::{
    BackendState, ClientScope, DropReason, FrontendEntry, FrontendFlags, FrontendKey, PassReason,
    Port, Protocol, RefusalKind, ServiceEntry,
};

use super::{
    Origin, Question, Scope, Tracer,
    packet_path::{Decision, PacketPath},
    tables::Lookup,
};
use crate::maps::{MapFamily, dump};

/// Of the ports of an address, so many are named.
const PORTS: usize = 8;

/// What there is to tell.
pub(super) struct Account<'a> {
    pub(super) tracer: &'a Tracer,
    pub(super) question: &'a Question,
    pub(super) origin: Origin,
    /// Where the origin was not said: why it is this one.
    pub(super) why: Option<String>,
    pub(super) lookups: &'a [Lookup],
    pub(super) path: &'a PacketPath,
}

impl Account<'_> {
    /// The sentences.
    pub(super) fn steps<F: MapFamily>(&self) -> Vec<String> {
        let mut steps = vec![self.beginning()];
        for lookup in self.lookups {
            steps.push(self.lookup::<F>(lookup));
        }
        if !self
            .lookups
            .iter()
            .any(|lookup| matches!(lookup, Lookup::Frontend(..)))
        {
            steps.push(self.no_frontend::<F>());
        }
        steps.extend(self.health_check());
        steps.extend(self.end());
        steps
    }

    fn beginning(&self) -> String {
        let Question {
            protocol,
            source,
            destination,
            interface,
            ..
        } = self.question;
        let interface = interface.as_deref();
        let opens = match protocol {
            Protocol::Tcp => "the first packet of a connection",
            Protocol::Udp => "the first datagram of a conversation",
            Protocol::Sctp => "the first packet of an association",
        };
        let packet = format!("{protocol} {source} -> {destination}, {opens}");
        let begin = match self.origin {
            Origin::Host => format!("a process of the node dials: {packet}"),
            Origin::Pod => format!(
                "from a pod, by {}: {packet}",
                interface.unwrap_or("its interface")
            ),
            Origin::Outside => format!(
                "from outside, by {}: {packet}",
                interface.unwrap_or("an interface of the node")
            ),
        };
        match &self.why {
            Some(why) => format!("{begin} ({why})"),
            None => begin,
        }
    }

    fn lookup<F: MapFamily>(&self, lookup: &Lookup) -> String {
        match lookup {
            Lookup::Frontend(at, entry, ClientScope::Everybody) => self.frontend(*at, *entry),
            Lookup::Frontend(at, entry, ClientScope::Inside) => format!(
                "the client is inside the cluster: for it {at}/{} leads to all endpoints of {}",
                self.question.protocol,
                self.service(entry.service_id)
            ),
            Lookup::Service(id, entry) => self.candidates(*id, *entry),
            Lookup::Backend(id, at, state) => {
                let name = self.tracer.names.backend(F::FAMILY, *id);
                let name = name.map_or_else(String::new, |name| format!(" ({name})"));
                if *state == BackendState::Active {
                    format!("{at}{name} is chosen")
                } else {
                    let state = dump::state(*state);
                    format!("{at}{name} takes no new flows: it is {state}")
                }
            }
        }
    }

    fn candidates(&self, id: u32, entry: ServiceEntry) -> String {
        let candidates = match entry.slots.length() {
            0 => return self.no_candidate(id),
            1 => format!("{} has one candidate", self.service(id)),
            count => format!("{} has {count} candidates", self.service(id)),
        };
        match entry.affinity_seconds {
            0 => candidates,
            seconds => format!(
                "{candidates}; a client gets the one it had again, for {seconds} s after its last new flow"
            ),
        }
    }

    fn frontend(&self, at: SocketAddr, entry: FrontendEntry) -> String {
        let protocol = self.question.protocol;
        let service = self.service(entry.service_id);
        let kind = match self.tracer.names.scope(at, entry) {
            Some(Scope::Internal) => "a cluster address of ",
            Some(Scope::External) => "an external address of ",
            None => "",
        };
        let notes = [
            (
                FrontendFlags::MASQUERADE,
                "who dials it reaches its backends by the node's address",
            ),
            (
                FrontendFlags::MASQUERADE_STRANGERS,
                "who is no pod of the cluster reaches its backends by the node's address",
            ),
            (
                FrontendFlags::INSIDE_ELSEWHERE,
                "clients outside get this node's own endpoints",
            ),
            (
                FrontendFlags::SOURCE_RANGES,
                "only clients within the Service's loadBalancerSourceRanges may come",
            ),
            (FrontendFlags::NODE_EXCLUDED, "the node is not among them"),
            (
                FrontendFlags::PROCESSES_ONLY,
                "for processes of the node alone",
            ),
        ];
        let notes = notes.iter().filter(|(flag, _)| entry.flags.has(*flag));
        let mut sentence = format!("{at}/{protocol} is {kind}{service}");
        for (_, note) in notes {
            sentence.push_str("; ");
            sentence.push_str(note);
        }
        sentence
    }

    fn service(&self, id: u32) -> String {
        match self.tracer.names.service(id) {
            Some(name) => name,
            None => format!("service #{id}"),
        }
    }

    fn no_candidate(&self, id: u32) -> String {
        let sentence = format!(
            "{} has no endpoint that this client may get now",
            self.service(id)
        );
        match self.tracer.names.reasons_against_endpoints(id) {
            Some(reasons) => format!("{sentence}: {reasons}"),
            None => sentence,
        }
    }

    /// The port may be where load balancers check the health of a Service.
    fn health_check(&self) -> Option<String> {
        let port = self.question.destination.port();
        if self.question.protocol != Protocol::Tcp {
            return None;
        }
        let checked = self.tracer.names.health_check(port)?;
        let is_frontend = super::frontend_of(self.lookups).is_some();
        Some(if is_frontend {
            format!(
                "{port} is the healthCheckNodePort of {checked} too: checks of its health do not reach this agent here"
            )
        } else {
            format!(
                "{port} is the healthCheckNodePort of {checked}: at the node's addresses this agent answers"
            )
        })
    }

    /// Nobody answers there: what is there instead?
    fn no_frontend<F: MapFamily>(&self) -> String {
        let at = self.question.destination;
        let protocol = self.question.protocol;
        let sentence = format!("{at}/{protocol} is no address and port of a Service");
        let others = self.ports_at::<F>(at.ip());
        if others.is_empty() {
            return sentence;
        }
        format!("{sentence}; at {} there are {others}", at.ip())
    }

    /// `80/tcp 443/tcp`
    fn ports_at<F: MapFamily>(&self, address: IpAddr) -> String {
        let Some(address) = F::address(address) else {
            return String::new();
        };
        let frontends = &F::of(&self.tracer.maps).frontends;
        let ports = frontends
            .range(FrontendKey::new(address, Port::ZERO, 0)..)
            .take_while(|(key, _)| key.address == address)
            .filter(|(_, entry)| entry.service_id != 0)
            .map(|(key, _)| key);
        let mut names: Vec<String> = ports
            .take(PORTS + 1)
            .map(|key| match Protocol::from_number(key.protocol) {
                Some(protocol) => format!("{}/{protocol}", key.port),
                None => format!("{}/{}", key.port, key.protocol),
            })
            .collect();
        names.dedup();
        if names.len() > PORTS {
            names.truncate(PORTS);
            names.push("and more".to_owned());
        }
        names.join(" ")
    }

    /// What becomes of it.
    fn end(&self) -> Vec<String> {
        match self.path.decision {
            Decision::Pass(PassReason::OtherProtocol) if self.origin == Origin::Host => vec![
                "it goes on unchanged: SCTP of the node's own processes is translated at a device, which this frontend is not served at".to_owned(),
            ],
            Decision::Pass(reason) => vec![pass(reason).to_owned()],
            Decision::Drop(reason) => vec![dropped(reason)],
            Decision::Failed(reason) => {
                let because = because(reason);
                vec![if reason.is_by_rule() {
                    format!(
                        "the call fails at once as if a firewall were in the way (EPERM): {because}"
                    )
                } else {
                    format!(
                        "the call fails at once as if the port were closed (ECONNREFUSED): {because}"
                    )
                }]
            }
            Decision::Translated => self.translated(),
        }
    }

    fn translated(&self) -> Vec<String> {
        let asked = self.question.destination;
        let destination = self.path.destination.unwrap_or(asked);
        let first = match self.origin {
            Origin::Host if self.path.is_at_node_device => format!(
                "the packet passes the node's own device (waggle0): its destination becomes {destination}, and replies come from {asked}; the flow is remembered: it keeps this backend"
            ),
            Origin::Host => format!(
                "the socket is connected to {destination} from the start; the process sees {asked} as its peer"
            ),
            Origin::Pod | Origin::Outside => format!(
                "its destination becomes {destination}; the flow is remembered: it keeps this backend, and replies come from {asked}"
            ),
        };
        let mut steps = vec![first];
        match self.path.source {
            Some(source) if self.path.masquerade => steps.push(format!(
                "on its way out its source becomes {source}: the reply comes back by this node"
            )),
            None if self.path.masquerade => steps.push(
                "on its way out its source becomes the node's address, which was not said: give it with --node-ip"
                    .to_owned(),
            ),
            Some(_) | None => {}
        }
        steps
    }
}

const fn pass(reason: PassReason) -> &'static str {
    match reason {
        PassReason::NotOurs => "it goes on unchanged, to whoever has that address",
        PassReason::Direct => {
            "it goes on unchanged to the backend that has that address; the connection is remembered, so that none to a Service shares its reply tuple"
        }
        PassReason::OtherProtocol => "it goes on unchanged: its protocol is not translated",
        PassReason::NotIp | PassReason::Malformed | PassReason::LaterFragment => {
            "it goes on unchanged: the datapath does not look into such packets"
        }
    }
}

fn dropped(reason: DropReason) -> String {
    let because = because(reason);
    match reason.refusal() {
        Some(RefusalKind::Unreachable) => {
            format!("it is refused (ICMP port unreachable): {because}")
        }
        Some(RefusalKind::Reset) => format!("it is refused (TCP reset): {because}"),
        None => format!(
            "it is dropped without an answer: {because} (counted as {})",
            reason.counter().name()
        ),
    }
}

const fn because(reason: DropReason) -> &'static str {
    match reason {
        DropReason::NoBackend => "there is no backend for it",
        DropReason::SourceNotAllowed => {
            "loadBalancerSourceRanges of the Service do not have its source address"
        }
        DropReason::NoSuchPort => "the address is a Service's, and this is none of its ports",
        DropReason::NoSuchService => {
            "the address is one that Services get theirs from, and no Service has it"
        }
        DropReason::NoLocalBackend => {
            "the policy is Local, there is no backend on this node, and other nodes have some"
        }
        DropReason::BackendGone => "its backend's pod is gone for good",
        DropReason::NoFlow => "it opens nothing and belongs to no known flow",
        DropReason::FlowConflict => {
            "another flow has the replies to its port, and no other port is free"
        }
        DropReason::FlowNotStored => "there is no room to remember its flow",
        DropReason::Fragmented => "it is a fragment that could not be remembered",
        DropReason::EarlyFragment => {
            "it is a fragment without ports, and came before the first one"
        }
        DropReason::NoMasqueradeAddress => "the node has no address to send it from",
        DropReason::NoMasqueradePort => "no port is free to send it from",
        DropReason::HalfRewritten => "it could be changed in part only",
        DropReason::Redirect => "it is an ICMP redirect about packets that are translated",
        DropReason::QuoteOutOfReach => "it is an ICMP error too long to be translated",
        DropReason::ServiceInMotion => {
            "the service's tables contradict each other: an agent is changing them, or something is wrong with them"
        }
    }
}
