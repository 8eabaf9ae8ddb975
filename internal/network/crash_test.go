package network

const crashEnv = "BERTH_NETWORK_TEST_CRASH"

func crashChild() {}
