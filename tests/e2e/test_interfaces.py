"""A VM with several network cards. On the fake Firecracker: what it is told and what is on the host; test_real_cards has the
same on a real one. On QEMU: a guest that answers on each of them."""

import os
import subprocess

from harness import CrashTest, MergenTest, ask
from test_configuration import LIMIT, REAL_LIMIT, Told
from waiting import eventually

PLAIN = [{"ifaceId": "eth0"}, {"ifaceId": "eth1"}, {"ifaceId": "eth2"}]
THREE = [{"ifaceId": "eth0"}, {"ifaceId": "eth1", "rxRateLimiter": LIMIT}, {"ifaceId": "eth2", "txRateLimiter": LIMIT}]


def run(*arguments):
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


def links(netns=None):
    """Names of the links of a namespace, without lo."""
    inside = ("-n", netns) if netns else ()
    names = [line.split(": ")[1].split("@")[0] for line in run("ip", *inside, "-o", "link").splitlines()]
    return sorted(name for name in names if name != "lo")


def await_no_guests_links():
    """The kernel takes a namespace apart, and the link to it, when the stop has been answered."""
    eventually(lambda: not [name for name in links() if name.startswith(("tap", "mg-"))], "the guests' links are gone")


class ThreeCards(Told):
    def create_three(self):
        return self.create(networkInterfaces=THREE)

    def told_cards(self, vm):
        """By id: Firecracker lists the cards of a guest that runs in any order; the guest has them in order."""
        return sorted(self.told(vm)["network-interfaces"], key=lambda nic: nic["iface_id"])

    def assert_wired(self, vm):
        network = vm.view()["network"]
        taps = [card["tapName"] for card in network["interfaces"]]
        self.assertEqual(links(network["netns"]), sorted(taps + ["uplink"]))
        for card in network["interfaces"]:
            self.assertIn("dev mg-", run("ip", "route", "get", card["guestIP"]))

    def test_view_env_and_exported_file_tell_of_all_cards(self):
        vm = self.create_three()
        network = vm.view()["network"]
        cards = network["interfaces"]
        self.assertEqual([card["ifaceId"] for card in cards], ["eth0", "eth1", "eth2"])
        self.assertEqual({name: cards[0][name] for name in ("guestIP", "mac", "tapName")},
                         {name: network[name] for name in ("guestIP", "mac", "tapName")})
        self.assertEqual([card["mac"][-2:] for card in cards], ["01", "02", "03"])
        self.assertEqual([card["tapName"].split("-")[0] for card in cards], ["tap", "tap1", "tap2"])
        for name in ("guestIP", "mac", "tapName"):
            self.assertEqual(len({card[name] for card in cards}), 3, name)
        with open(vm.view()["paths"]["envPath"], encoding="ascii") as file:
            env = file.read().splitlines()
        for number in (1, 2):
            self.assertIn(f"MGN_GUEST_IP_{number}='{cards[number]['guestIP']}'", env)
            self.assertIn(f"MGN_TAP_NAME_{number}='{cards[number]['tapName']}'", env)
            self.assertIn(f" mergen.ip{number}={cards[number]['guestIP']}/24", vm.view()["bootArgs"])
        exported = self.server.api.get(f"{vm.path}/vmm-config")["network-interfaces"]
        self.assertEqual([nic["host_dev_name"] for nic in exported], [card["tapName"] for card in cards])
        vm.delete()

    def test_firecracker_gets_each_card_with_its_limits(self):
        vm = self.create_three()
        vm.start()
        cards = vm.view()["network"]["interfaces"]
        told = self.told_cards(vm)
        self.assertEqual([(nic["iface_id"], nic["host_dev_name"], nic["guest_mac"].lower()) for nic in told],
                         [(card["ifaceId"], card["tapName"], card["mac"]) for card in cards])
        self.assertEqual([nic["rx_rate_limiter"] for nic in told], [None, REAL_LIMIT, None])
        self.assertEqual([nic["tx_rate_limiter"] for nic in told], [None, None, REAL_LIMIT])
        self.assert_wired(vm)
        vm.stop()
        await_no_guests_links()
        vm.start()
        self.assert_wired(vm)
        vm.delete()

    def test_a_server_adopts_all_cards_and_completes_what_is_missing(self):
        vm = self.create_three()
        vm.start()
        before, pid = vm.view()["network"], vm.pid()
        self.server.kill()
        run("ip", "route", "delete", before["interfaces"][2]["guestIP"])
        self.server.start()
        self.assertEqual((vm.state(), vm.pid(), vm.view()["network"]), ("running", pid, before))
        self.assert_wired(vm)
        other = self.create_three()
        addresses = {card["guestIP"] for card in before["interfaces"]}
        self.assertTrue(addresses.isdisjoint(card["guestIP"] for card in other.view()["network"]["interfaces"]))
        other.delete()
        vm.delete()

    def test_a_rate_limit_of_a_further_card_is_changed_while_it_runs(self):
        vm = self.create_three()
        vm.start()
        self.assert_status(200, "PATCH", vm.path, {"networkInterfaces": [{"ifaceId": "eth2", "rxRateLimiter": LIMIT}]})
        told = self.told_cards(vm)
        self.assertEqual([nic["rx_rate_limiter"] for nic in told], [None, REAL_LIMIT, REAL_LIMIT])
        vm.delete()

    def test_more_than_four_cards_are_refused(self):
        before = self.server.api.get("/v1/vms")
        five = [{"ifaceId": f"eth{number}"} for number in range(5)]
        reply = self.assert_status(400, "POST", "/v1/vms", self.body(networkInterfaces=five))
        self.assertIn("networkInterfaces", reply.json["detail"])
        self.assertEqual(self.server.api.get("/v1/vms"), before)


class ThreeCardsOnTheHost(ThreeCards):
    """With taps in the host's namespace."""

    network = {"topology": "tap"}

    def assert_wired(self, vm):
        for card in vm.view()["network"]["interfaces"]:
            self.assertIn(f"dev {card['tapName']}", run("ip", "route", "get", card["guestIP"]))


class CrashWithCards(CrashTest):
    """The server dies while the further cards are made."""

    def crash_in_start(self, point):
        vm = self.create(networkInterfaces=PLAIN)
        self.crash(point, "POST", f"{vm.path}/start")
        self.assertEqual(vm.state(), "stopped")
        await_no_guests_links()
        self.assertEqual(os.listdir("/run/netns") if os.path.isdir("/run/netns") else [], [])
        vm.delete()

    def test_a_further_card_is_half_made(self):
        self.crash_in_start("network.linux.attach.further")

    def test_all_cards_are_made_inside(self):
        self.crash_in_start("network.linux.attach.inside")


class Guest(MergenTest):
    """A real guest, emulated, on each topology."""

    def test_a_guest_answers_on_each_of_its_addresses(self):
        vm = self.create_and_start(networkInterfaces=PLAIN)
        page = vm.await_page()
        vm.await_console("mergen-guest: ready")
        cards = vm.view()["network"]["interfaces"]
        for number, card in enumerate(cards[1:], 1):
            self.assertIn(f"mergen-guest: eth{number} is {card['mac']} with the address {card['guestIP']}/24",
                          vm.console())
        for card in cards:
            self.assertEqual(ask("GET", card["guestIP"], 80), page, card)
        pid = vm.pid()
        self.server.kill()
        for card in cards:
            self.assertEqual(ask("GET", card["guestIP"], 80), page, f"without a server: {card}")
        self.server.start()
        self.assertEqual(vm.pid(), pid)
        vm.stop()
        vm.start()
        self.assertIn("boots: 2", vm.await_page())
        for card in cards:
            self.assertIn("boots: 2", ask("GET", card["guestIP"], 80), card)
        vm.delete()


class GuestOnTapsOfTheHost(Guest):
    settings = {"network.linux": {"topology": "tap"}}
