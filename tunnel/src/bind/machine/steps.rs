//! From the first offer to the confirmed WireGuard handshake.

use std::sync::Arc;

use super::{
    Agreed, Arm, Machine, Opened, Output, OwnPart, Presented, Seeds, State, Surroundings,
    TURN_PATIENCE, VERSION, earlier, open,
};
use crate::bind::Role;
use crate::bind::claims::{self, PeerClaims};
use crate::bind::codec::{self, KemShare, Message, Offer, Proof};
use crate::bind::ending::Fault;
use crate::bind::kem::{self, KemKey};
use crate::bind::lease::{Standing, lease_end};
use crate::bind::policy::{Grant, MAX_ALLOWED_IPS};
use crate::bind::proof::Proven;
use crate::bind::schedule::{FIRST_EPOCH, Parties, Party, Schedule, Transcript};
use edgeward_identity::{BootTime, Secret};

impl Machine {
    pub(super) fn check_identity(&self, around: &Surroundings<'_>) -> Result<(), Fault> {
        if self.peer.spki_hash() == self.local.spki {
            return Err(Fault::Reflected);
        }
        Ok(self.peer.still_accepted(around.trust, around.now.wall)?)
    }

    pub(super) fn take_offer(
        &mut self,
        offer: Offer,
        body: &[u8],
        around: &Surroundings<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let State::AwaitOffer(part) = std::mem::replace(&mut self.state, State::Ended) else {
            return Err(Fault::OutOfTurn("offer"));
        };
        self.presented = Some(self.judge_offer(&offer, around)?);
        let agreed = match (part, offer.share) {
            (OwnPart::Initiator { offer: own, key }, KemShare::Ciphertext(ciphertext)) => {
                self.agree_as_initiator(&own, *key, &ciphertext, body, &offer.wireguard_key)?
            }
            (OwnPart::Responder { seeds }, KemShare::Key(key)) => {
                self.agree_as_responder(&seeds, &key, body, &offer.wireguard_key, out)?
            }
            (_, KemShare::Key(_) | KemShare::Ciphertext(_)) => {
                return Err(Fault::OutOfTurn("key share of the other role"));
            }
        };
        self.state = State::AwaitProof(Box::new(agreed));
        Ok(())
    }

    fn agree_as_initiator(
        &mut self,
        own: &[u8],
        key: KemKey,
        ciphertext: &[u8; codec::CIPHERTEXT_BYTES],
        body: &[u8],
        peer_key: &[u8; 32],
    ) -> Result<Agreed, Fault> {
        let transcript = Transcript::of(&self.context, own, body);
        self.agree(key.decapsulate(ciphertext), transcript, peer_key)
    }

    fn agree_as_responder(
        &mut self,
        seeds: &Seeds,
        key: &[u8; codec::ENCAPSULATION_KEY_BYTES],
        body: &[u8],
        peer_key: &[u8; 32],
        out: &mut Vec<Output>,
    ) -> Result<Agreed, Fault> {
        let mut random = [0; 32];
        for (to, from) in random.iter_mut().zip(seeds.kem.expose()) {
            *to = *from;
        }
        let (ciphertext, secret) = kem::encapsulate(key, &Secret::new(random))?;
        let own = self
            .local
            .offer(KemShare::Ciphertext(ciphertext), seeds.nonce)
            .body();
        let transcript = Transcript::of(&self.context, body, &own);
        let agreed = self.agree(secret, transcript, peer_key)?;
        let proof = agreed
            .proven
            .prove(Role::Responder, self.local.boot_key.as_ref())?;
        out.push(Output::Send(codec::frame(&own)));
        out.push(Output::Send(codec::frame(&Message::Proof(proof).body())));
        Ok(agreed)
    }

    fn agree(
        &mut self,
        kem_secret: Secret<[u8; 32]>,
        transcript: Transcript,
        peer_key: &[u8; 32],
    ) -> Result<Agreed, Fault> {
        let root = self.root.take().ok_or(Fault::OutOfTurn("second offer"))?;
        let keys = [self.local.wireguard.public(), *peer_key];
        let schedule = Schedule::start(root, kem_secret, &transcript, &self.parties(), keys);
        let proven = Proven::new(transcript, &schedule, &self.local.wireguard, peer_key)?;
        Ok(Agreed { schedule, proven })
    }

    pub(super) fn take_proof(
        &mut self,
        proof: &Proof,
        around: &Surroundings<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let State::AwaitProof(agreed) = std::mem::replace(&mut self.state, State::Ended) else {
            return Err(Fault::OutOfTurn("proof"));
        };
        let boot_key = *self.known()?.claims.boot_key();
        agreed.proven.check(self.role.other(), &boot_key, proof)?;
        match self.role {
            Role::Initiator => {
                let proof = agreed
                    .proven
                    .prove(Role::Initiator, self.local.boot_key.as_ref())?;
                out.push(Output::Send(codec::frame(&Message::Proof(proof).body())));
                self.state = State::AwaitArmed(agreed);
            }
            Role::Responder => {
                out.push(Output::Arm(Box::new(self.arm(&agreed, around)?)));
                let armed = Message::Armed { epoch: FIRST_EPOCH };
                out.push(Output::Send(codec::frame(&armed.body())));
                self.state = State::AwaitConfirm(agreed);
            }
        }
        Ok(())
    }

    pub(super) fn take_armed(
        &mut self,
        epoch: u64,
        around: &Surroundings<'_>,
        out: &mut Vec<Output>,
    ) -> Result<(), Fault> {
        let State::AwaitArmed(agreed) = std::mem::replace(&mut self.state, State::Ended) else {
            return Err(Fault::OutOfTurn("armed"));
        };
        if epoch != FIRST_EPOCH {
            return Err(Fault::OutOfTurn("armed for another epoch"));
        }
        out.push(Output::Arm(Box::new(self.arm(&agreed, around)?)));
        self.state = State::AwaitConfirm(agreed);
        Ok(())
    }

    /// WireGuard completed a handshake. Under another epoch than awaited it means nothing.
    pub(super) fn confirmed(
        &mut self,
        epoch: u64,
        around: &Surroundings<'_>,
        out: &mut Vec<Output>,
    ) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::AwaitConfirm(agreed) if epoch == FIRST_EPOCH => {
                if let Some(presented) = &self.presented {
                    out.push(Output::Open(Box::new(self.opened(presented, &agreed))));
                    let now = around.now.boot;
                    self.patience = (self.role == Role::Responder).then(|| now.plus(TURN_PATIENCE));
                    let live = open::Live::new(self.role, agreed.schedule, now);
                    self.state = State::Open(Box::new(live));
                    self.announce_own_result(out);
                }
            }
            State::Open(mut live) => {
                if live.confirmed(epoch) && self.role == Role::Initiator {
                    self.patience = None;
                }
                self.state = State::Open(live);
            }
            other => self.state = other,
        }
    }

    /// What the offer says of the peer, if it may bind at all.
    fn judge_offer(&self, offer: &Offer, around: &Surroundings<'_>) -> Result<Presented, Fault> {
        if offer.version != VERSION {
            return Err(Fault::Version(offer.version));
        }
        if offer.wireguard_key == self.local.wireguard.public() {
            return Err(Fault::OwnKey);
        }
        if let Some(holder) = around.memory.holder(&offer.wireguard_key)
            && holder != self.peer.id()
        {
            return Err(Fault::KeyTaken(holder.to_string()));
        }
        let claims = claims::judge(
            &offer.result,
            offer.boot_statement.as_deref(),
            &self.peer,
            around.keys,
            around.memory.floor(&self.peer.spki_hash()),
            around.now.wall,
        )?;
        let (grant, until) = self.grant(&claims, around)?;
        Ok(Presented {
            wireguard_key: offer.wireguard_key,
            boot_id: offer.boot_id,
            slice_number: offer.slice_number,
            claims,
            allowed_ips: grant.allowed_ips,
            until,
        })
    }

    /// Asks policy, and computes the lease.
    pub(super) fn grant(
        &self,
        claims: &PeerClaims,
        around: &Surroundings<'_>,
    ) -> Result<(Grant, BootTime), Fault> {
        let grant = around
            .policy
            .may_bind(&self.peer, claims, around.now.wall)?;
        if grant.allowed_ips.is_empty() || grant.allowed_ips.len() > MAX_ALLOWED_IPS {
            return Err(Fault::Prefixes(grant.allowed_ips.len()));
        }
        let standing = Standing {
            passed: claims.passed(),
            by_boot_statement: claims.by_boot_statement(),
            certificates_until: earlier(self.peer.not_after(), self.local.not_after),
        };
        let until = lease_end(&standing, &grant.limits, around.link, around.now)?;
        Ok((grant, until))
    }

    /// What WireGuard needs. The lease is computed once more: time has passed since the offer.
    fn arm(&mut self, agreed: &Agreed, around: &Surroundings<'_>) -> Result<Arm, Fault> {
        self.check_identity(around)?;
        let claims = self.known()?.claims.clone();
        let (grant, until) = self.grant(&claims, around)?;
        let role = self.role;
        let own_keys = Arc::clone(&self.local.wireguard);
        let peer = self.peer.id().clone();
        let presented = self
            .presented
            .as_mut()
            .ok_or(Fault::OutOfTurn("nothing was offered"))?;
        if let Some(holder) = around.memory.holder(&presented.wireguard_key)
            && *holder != peer
        {
            return Err(Fault::KeyTaken(holder.to_string()));
        }
        presented.allowed_ips.clone_from(&grant.allowed_ips);
        presented.until = until;
        Ok(Arm {
            role,
            peer,
            wireguard_key: presented.wireguard_key,
            own_keys,
            epoch: FIRST_EPOCH,
            psk: agreed.schedule.psk(),
            reach_key: agreed.schedule.reach(),
            allowed_ips: grant.allowed_ips,
            until,
        })
    }

    fn opened(&self, presented: &Presented, agreed: &Agreed) -> Opened {
        Opened {
            role: self.role,
            peer: self.peer.id().clone(),
            peer_spki: self.peer.spki_hash(),
            peer_leaf: *self.peer.leaf_hash(),
            wireguard_key: presented.wireguard_key,
            claims: presented.claims.clone(),
            peer_slice_number: presented.slice_number,
            transcript: *agreed.proven.transcript(),
            epoch: FIRST_EPOCH,
            allowed_ips: presented.allowed_ips.clone(),
            until: presented.until,
        }
    }

    pub(super) fn known(&self) -> Result<&Presented, Fault> {
        self.presented
            .as_ref()
            .ok_or(Fault::OutOfTurn("nothing was offered"))
    }

    fn parties(&self) -> Parties {
        let own = Party {
            leaf_hash: self.local.leaf_hash,
            spki: self.local.spki,
        };
        let peer = Party {
            leaf_hash: *self.peer.leaf_hash(),
            spki: self.peer.spki_hash(),
        };
        parties_of(self.role, own, peer)
    }
}

/// Both sides by role.
pub(in crate::bind) fn parties_of(role: Role, own: Party, peer: Party) -> Parties {
    match role {
        Role::Initiator => Parties {
            initiator: own,
            responder: peer,
        },
        Role::Responder => Parties {
            initiator: peer,
            responder: own,
        },
    }
}
