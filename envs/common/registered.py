"""The names that swappable parts go by, each with the "module:attribute" that is imported when it is asked for."""

P2P, TRANSACTIVE = "peergrid.envs.p2p_trading", "peergrid.envs.transactive"
POLICIES_OF_CASES, POLICIES_OF_FORESIGHT = "peergrid.baselines.cases", "peergrid.baselines.foresight"
POLICIES_OF_P2P, POLICIES_OF_TRANSACTIVE = "peergrid.baselines.policies", "peergrid.baselines.transactive_policies"

MECHANISMS = {name: f"{P2P}.mechanisms:{name}" for name in ("call_auction", "mid_market_rate", "bilateral", "direct")}
DSOS = {
    "opf": "peergrid.envs.p2p_trading.scenario:build_dso",
    "unchecked": "peergrid.envs.p2p_trading.scenario:build_unchecked_dso",
}
PREDICTORS = {
    "auto": "peergrid.surrogate.predictor:auto",
    "none": f"{P2P}.predictors:no_prediction",
    "transformer": "peergrid.surrogate.predictor:transformer",
    "oracle": f"{P2P}.predictors:oracle",
}
POLICIES = {
    "random": f"{POLICIES_OF_P2P}:RandomPolicy",
    "no_trade": f"{POLICIES_OF_P2P}:NoTrade",
    "truthful": f"{POLICIES_OF_P2P}:Truthful",
    "planned": f"{POLICIES_OF_P2P}:Planned",
    "receding": f"{POLICIES_OF_P2P}:Receding",
    "selfish": f"{POLICIES_OF_P2P}:Selfish",
    "adaptive": f"{POLICIES_OF_P2P}:Adaptive",
    "zero_intelligence": f"{POLICIES_OF_P2P}:ZeroIntelligence",
    "foresighted": f"{POLICIES_OF_FORESIGHT}:Foresighted",
    "strategic": f"{POLICIES_OF_FORESIGHT}:Strategic",
    "network_mpc": f"{POLICIES_OF_FORESIGHT}:NetworkMpc",
    "case_1": f"{POLICIES_OF_CASES}:Case1",
    "case_2": f"{POLICIES_OF_CASES}:Case2",
    "case_3": f"{POLICIES_OF_CASES}:Case3",
    "case_3_this_hour": f"{POLICIES_OF_CASES}:Case3ThisHour",
    "case_3_cut_only": f"{POLICIES_OF_CASES}:Case3CutOnly",
    "case_3_blind": f"{POLICIES_OF_CASES}:Case3Blind",
    "optimal": f"{POLICIES_OF_P2P}:Optimal",
}
TRANSACTIVE_POLICIES = {
    "optimising": f"{POLICIES_OF_TRANSACTIVE}:Optimising",
    "myopic": f"{POLICIES_OF_TRANSACTIVE}:Myopic",
    "scheduled": f"{POLICIES_OF_TRANSACTIVE}:Scheduled",
}
RULES = {name: f"{TRANSACTIVE}.signal:{name}" for name in ("halving", "fixed", "proportional", "none")}
