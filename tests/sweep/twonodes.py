"""A Ray cluster on a loopback address of this machine: two nodes, each with one CPU, and a head without any.

As a script: prints its address; kills a node for the line "kill"; ends at the end of its input.
"""

import sys


def main():
    from ray.cluster_utils import Cluster

    here = {"node_ip_address": "127.0.0.2"}  # Ray replaces 127.0.0.1 by the address of the network
    head = {"num_cpus": 0, "include_dashboard": False, **here}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, **here) for _ in range(2)]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
