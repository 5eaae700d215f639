"""FLOE: known answers of the C++, Java and Rust implementations, both ways; properties of the cipher, and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from gateway_seal.floe import OVERHEAD_BYTES, Floe, Forged, Params, open_bytes, seal_bytes
from hypothesis import given
from hypothesis import strategies as st

KEY = bytes(32)
AAD = b"This is AAD"
SMALL = Params(64)

# Snowflake-Labs/floe-specification, kats/ (Apache-2.0): name, parameters, text, ciphertext. Key: 32 zero bytes.
KNOWN = [
    (
        "cpp_GCM256_IV256_64", Params(64, 20),
        "2a6894f4dbd2921bfdbbb24137fbbba2a104edc4bb26c6aa7ae5e2882d3f8fc424475ae89b2f44ca8adc40c87c96da239f5c24a3"
        "1335dfdce74d05f75d22c5de9010b0",
        "000000000040000000209eef02903a6248efbbc28bb5fe9f26386dda29381ff7146fe7e55e6a7cceafe47fea15db0e6f0f2d76c6"
        "de30b075a3445629cd6d214246252c84c3bfbaf76dc1ffffffff8e5070ba681c6a2c99ef167ff48662044dfd427501b0effe93ff"
        "28f53d7d324232d8bc58c91956af83e89e91f4ceccbeef54beab0d18ba4041372e21ffffffffd61eff19b2d45021936d07e0e58c"
        "f65d8ee1b905937569fc10d688728212ae82f136a1db99306fef949b66ec63df7173be1f75bf142679a165ebfc5f000000231c1b"
        "027633b3086b58e62358306d4c8b80bcdccff7f70b0f231ab5c2e3ed33",
    ),
    (
        "java_lastSegAligned", Params(40, 20),
        "935e679e8deaeecc300777f90606d92c",
        "00000000002800000020ea1abfaa4f4aeb96c152ae87eace05f91ad5e1a7f4bec7dc92b79e6ea9d925cd29315fb4c1c3034c7116"
        "2de9eede6095147a37171b78d0316f25d0124a04d8deffffffffa3b026ca128af0b79bafb550f9d298864fc5a413355c17d822e0"
        "acf6a78b6ae25b5df56600000028a34316dedf6ccc1a96d6de3e1d612b36b43a025b429dc539b96ca79bca0eb4ab0d3b0412",
    ),
    (
        "java_lastSegEmpty", Params(40, 20),
        "b83fb512012054a0195ff30074ebd4a8",
        "00000000002800000020e4fd1738289ec2a831a32ff254bc176033f565de7f15928355b3a8bb4694a67b3e5dbb9e3bb6608743b2"
        "451f6fd129a31d83b455a67eaf11be3b882dd8d3b10fffffffff1fdfeebb9f3d2c4af5f556e481d8c73c8ad1286a4a2cf73580f5"
        "eef7cd20922b5c430ddbffffffff777bc2da2eb1d497f77657cc4eb211fa9c5280b1f0cab8d6c9c34a81c37140079c3d5cb10000"
        "00201832f5ffdd0e8529483ee8032c2fcd25779ddf459dcdd57fb3ba8d80",
    ),
    (
        "java_rotation", Params(40, 2),
        "1c79058d26a13b0cac41256ca000c75b8938f2378c76e2d01308d9a9e2240ea4d30086565a748049fa45efcbdaf51c317f3f4037"
        "47b09f856e4e516624906a347a2bae2a5079576eb340ac4367611439c40d54",
        "00000000002800000020bcff1ac58da5913ecd816a609cd111829060413f4e6fc975fcd7924865bf57e8ce413a9820327c6cb03a"
        "613b9208bdcb8941c3b9ed7698a47cbf540ff20dbe7effffffff1d46a3b8256de57fd4cc768c57f1eb0d04daff23edf52629979c"
        "06e55a8c3a188252d159ffffffff122818aa0f01912d473e414ca6b16009cdcf437802aa7f7abcc6aa0e0567b55027f26fc2ffff"
        "ffff7b3c05915ff86d433f96fe003e0874666c0691cbdf827702927f46d072bf40e82e0c1d01ffffffff138c8a17e461985bbd19"
        "52fc8fcdf0470ab8bc3dfef8413e7fef8e18e592c7697a2814c7ffffffff1851eb4596328bb46f8e1f51a8079590fef03a2dd361"
        "75ead47fc2de8d3d7eb2c24e829cffffffff2a0b2ea2edb81889b8ba78cea4a1090ba759de7e2ed660e01530729f5e2e8a39fe34"
        "435effffffff5681b49f7e01cc19aeec4858e607443239b2e7ade1f8beeb8833a9640fa0a9d3f8a5617effffffff5517335d118b"
        "8c5fd8b7e1a45ca801338778dd451ff2175b168f77d8deeac011a12cfcd4ffffffff38fd26287078599380825bc5e6a58c232147"
        "603721a76475b3b110dbb7e9a53ef815468effffffff905ea3ae3074a8f1548185dd9bf11ced3cd3bce3e0c0e5f1d331136da1db"
        "68874a99a0e500000023f83701a68fb679ad1d8fd4c3b9721bd8df4f1c6acd466a4b110a6f7a90b8b0",
    ),
    (
        "cpp_rotation", Params(40, 2),
        "71444e9093e66a14af70396e5446ce0e987f5477759627a0f45f36a9d811c6bcb1c07243e3ed2294657fdf9270775fcfe7d3dc6b"
        "529d99aa12969556fed5226a35cb54c8ebff2fef7721c81ab732e65ffdba4e",
        "00000000002800000020e8ea6a4346648779d21a18109d5671afbac8cd123d7b9b5aafaac1c05d399c8278038be78c77a6adad73"
        "61d73983254ea4e2f32fc37ab97e25d10ac4ae53a704ffffffffb43da3e3d1543d9676220e71baba14622ff32acec1c06abeb05e"
        "0aa1b7bdf78bfb6c2b1fffffffffb99d1f34291aa2d18b92b22a0a989fa976de41180961c4e73dcd108f02ba8c257966d972ffff"
        "ffffbd16ee95bf046568723647c65a9a40e61fa3ee71556df75000a83e73f224aa6a6d78efaeffffffff8c9d9a60c44d735ab76c"
        "1aa1e00b58668d42c916e5bb230ac0ebfbe957cf94881173dd88ffffffff25e0927e8a44cdcd4e82b14ce7a3c844a750fea545f8"
        "d30ecf8c61f063a7e43658c0f507ffffffff198ef8cbb7b30f32bac492a88abf1d569f84b683ec403a68ca932c436c275bb904f5"
        "14baffffffffa7c7dbe1fae9a2a317e1370c00553d9e5a44ba6c3770e055065e50ace6d1386005cbfd33ffffffff7c9e12e5b4ca"
        "3e60c7f25f363ad39f40d2595875db378a97ca846e359e85503af4ff8da8ffffffff6fce493dae4e39f011d0880fca124bd5b093"
        "9c31cf434af9736e646a227e05be55d4ac11ffffffffdffab8054c39eb056a87df19c4d5caee8f7e2914c93e097ea5be753be5fb"
        "ebf27cbf0ff10000002393f12b4662fd40164b135df9317bfdd177acc439f10a0c5e4de0365d029ff9",
    ),
    (
        "java_GCM256_IV256_64", Params(64, 20),
        "ef2bc51a89cd7a2b3253bd5be50a6489cf9b200ea7452256c4be5653cb387cb0dec1a51c3270cfeb65d0a784c780d0019412303d"
        "23e70486660dc182b494e4e7cdbb0b",
        "00000000004000000020805f0152a4286ed9cf0fe9659611f6c9766e101170927576640a27e50c4590b0444d57bb9de560dc64a7"
        "8acc22810cba84dc49a30825e97b7e1b074e7c69c398ffffffff73b3b469d616f2669ddb89e8930450f159867de5a252dbbb24a4"
        "f6477d97d3ce9fc752537be0a4414beec7f587cc604abe893e34314add36a1763b8affffffff38b31dbfac7c629a1910b6508a27"
        "ab14bb7da2545fc186754a51a1f301b2e1957fcd119dbaa7fa571c9ed9817ddcd400245255f305d90f26b8a2a60900000023cb11"
        "21d1186a16b066081c08f65761c063cd45881e8f36d733bbe97fef2e23",
    ),
    (
        "rust_GCM256_IV256_64", Params(64, 20),
        "060704a0818fd875cdcd46c1a0f04c256a4d82f92b2d84b4db172e8e816a2caeb895102aa8f21d4cdd5a076bf66c179729b0de8c"
        "bf4adce527bc9d0042da3b78c101401ce078b1419c08167df00aecf21588e179ca7e340e8080ed6c3eea03b6d78007fc25994758"
        "c355b82b415092f15f79a49473d9f5a3e9f74ea099b897b1b5cb8b",
        "000000000040000000201a07d077d2a8a5440beb942a1f9de0c7bbe37703a3534ef6c5df8a07fa435c91be615d25a403b2c509af"
        "546c74d6d4f9f4a77c7705b10618eb88f0bfb2437f6cffffffff01274defbffdd8af94328d2986504b084e0a8376cef4222ab251"
        "0f67ddc540ccb1b868a2d16b107689a44504cb1e4d0184ad30aeb54a1e1249e8cd33ffffffff985053251020b53fb281b58e5dbe"
        "47dac42d75120439b17b9e76b2d35116a8aca15b0d234d9447141d697f47058bdf3be07d9903b6f8b92ba0b523a5ffffffff0847"
        "ca28d5904b3d0d697890a36c5f46ada10a7cb85194808424948e0391459be072a2db0c18403cef2d0a276a5440410c8fb11b5547"
        "64eff1f5f956ffffffff87fa4535fed0721460160ada080fc574641fdf6ea4216ce5510c1eca0749e30a28e74763ee8495f65350"
        "851f8badb9e9e04a40b29efe41972f16b15300000023b42ad157c2a14839fa5715e1320ecc03d9de26942829633521bce691be01"
        "f7",
    ),
    (
        "rust_rotation", Params(40, 2),
        "44a5e7d456971070989e0ad2335967b911d864b0f0d04e95a763d01efaecaf0ba1c5263b91334cdab1f0af76a6eb5a2d79c67f27"
        "bc70d3d255fbdd1db078c7625bbc69764c2653492b5b1e8db4d47670d90bb1ce65c9abc55c433934a8e7a2a2e746c207b947192b"
        "ea392819164b904b85f2369aada7f41047efbd2fd2efd5f648a33189e0277b20eba15714032beb1af7451793401875343c51db56"
        "40e65070c29a4c5b1196a1509ac5b28d66f0d322bf58bcc2192a58e2fbc2290334020bcdc1e92c5734bc11e55cc575944ef8d69d"
        "cc67c3bf2db3a850c8f8b0cd77f291c3d9753bcc6d61e74d6a8bba85f48cbd44e24b59839c4bbca07e5b8963b33d46901d7c9b14"
        "c76380749cde9735790df3ed3594f282ace2d3889804942bee9340c4637ae5f98a501b8df3ae74619e4486891e0c1d618a7c799a"
        "ea82cf1129359a31df5d87038fddf8f33a1ea9f84a0d4fdcce917ff7e004df0fbff540bffa672b1e214b4b7ee7e781f41c527a0b"
        "18ab48d1c11989c31130520c6c9f948a6b3ff41d614743fc49ca108f8c6f57b8dd5742b5aca807",
        "00000000002800000020c370b2faac9452479904b8f9423149027e102f09a5d67dc35d38d7ece694eb789dbeb896e24908444c42"
        "160a831fb4174647cb1ac46caa7443af545b56789be6ffffffffe3a01b0b469bd7f868f4e3ad0d42a234de791752fc9299f547e1"
        "cd565174dce7a188e785ffffffff3271de03ba778631a9c0ed1ffe973828baad035625db78f1f63163b368591875fb10f7fcffff"
        "ffff5669769a65ec17e1b8d9b1fd97b0d90bd987b6623f777fedfeffe815a58d0635584c95c4ffffffff0136ca0727d1ea7254c6"
        "cff6d17a83839ff986f354f1dfa969b35bc002fa7de660b5d6ccffffffff44132bc9fa1eb7085ee0a1cbcc94f9e16c98c0b5e9fe"
        "3e778cc0746352f05ae029f164e4ffffffffb38f06adf41a24fbfd58b97cf0731c06893a53f4d0cb54fa5746c92c4baecce00a1c"
        "967bffffffffd6cb3b8edd61c8fe0b166feecb851bd3b635400c86ba9cda7ae068f45baa36f0860cd896ffffffff526511be5df8"
        "7d4d57438d6e760197d1639c80cfec454ff83f0f057a215cce83728a6105ffffffffb68ef6950eb0412d80ee700ec9a78a09f443"
        "c5a3a0bfa2274f0e5dc497f9bd65462ac6abffffffff308cc219ac752d30c0be59dbd472bcd85b740bad154414212daa5db9a3bd"
        "ce799a1114bfffffffffef5d118b4266e4b5fa6ae336222cb0cf2c02fc3318620907bbe0a25145ffc29ba0259cc1ffffffff0458"
        "0c8f92e249aea145566deccb16cfdbae723cb9491578b12d8212b7cc9da99d797d1fffffffff37db92c48a21e3abbec1015ce33d"
        "312a24f9021d478e6d94c14008367c9f40dce7251323ffffffff2d3f6dc2561b5e98dcdbf670e1e11da2cfd6a74a787dae9df3ff"
        "c281e034d7fcd52138d8ffffffffebdacdac327b55271c80593b6dc955a1dd9c2af20ce5cd92500a7c7c4fbcba84484f4de8ffff"
        "ffffb0758ff5da0576ef49a3d1c7319a3beb597b3b4e4bce10697352792f55e4fdc62bb8bf0affffffffd7044428c4c52ed137ab"
        "c0001b120aa864b848c2f37b057f1a130928f581274c78781aa0ffffffff14365b8fb53ab39b55c816bd30bb974de3048938f864"
        "e4d4f151da47e1f2aea692439e5bffffffffc02902d88c7c36435839c429a563fece67b85726c6330d2947904d7599753e322056"
        "26ceffffffff7fc752379bd924dc9d47f642b4f123eb979846dd72233ded0da650a2316ec7ab5dc8d143ffffffffbd101759e7fc"
        "9f58bc70770f8b5a1a74edf8b034dacd81eb949de6f9712810669c88ece1ffffffffa9de2bb5dcccec2a4bfe8406619882384c22"
        "033d05e21ae9031e261cae59a15c092b2e14ffffffff647b5377edba9277f9cc9b932eb95726a16199c6c7daee2196e7796db419"
        "5d5b9cb59c87ffffffff8545dfbf6b7f853a9efa4b6774ec6fababe9fb772894e04cde67221a2044fe3813cb22faffffffffeba7"
        "42f2e3023f787ad7dc0f70acc2f6b2b584ad36834a5a96c406d2ed36104f4ca1b220ffffffffbc3fa779568b7cc9c07bf87cd264"
        "958d95de34f400dda3c2ca43d5ad1594b397782a6f84ffffffff7e6fa47f2495c19a6afcb141e5664fd80766e3d56508a6570d5c"
        "708035be62d3692176d8fffffffffce0d7ca1fb19c5ae21bea42991502d4e89f39dca3450cba6322113d03a7f66827ea9a14ffff"
        "ffff8602a1432b59b87a9b3cf4e892439b7fb41a05df334691b3f8c8fd3e2e707ac4a95839ceffffffffbadb01b9a2e67405f841"
        "5b7ccb8d72a909dd80c0d94b1744bc3f71a00df9085a252ae494ffffffff22bba3d6828893c38ed4bd5521e442005a70349c5df9"
        "743bc37cc87daa19907d0f2830c1ffffffff06fd3fd6568bc10e23057f1316205a23bbacae2354cef27d0758e97c7dbf2d91e1a1"
        "b7e9ffffffffcb9f95ce53d7e58e2e3c0bd88db6784e73ce25d9ae8a20c1e97f4a283332e40ad2097e67ffffffff5c5394adc109"
        "7d55056879347cb050611d6b18e8d7787e0ca763a12ae1a1b97baec8952bffffffffbdadc58fad9e87b47cbc060003cfb1ef0c59"
        "47f8df544320b2bd9f67d26bbf1adcfe0385ffffffff0f98c2825c9d882f48604e6d6c1122248c0e660690178a6dec69ff9e86bf"
        "35cf1ab42050ffffffff29b0b51d33a8fd83a5c488a2778feee9034ed1a7900250825ee0c4bda8b3b3445d6ad4f1ffffffffc383"
        "c6a959bfc485781bbc512a50087abb6454b5e788fbda8b1d4a4189dfef8a4a68da62ffffffff785bf91f6008e5907f69efda3489"
        "e6e4ab16ac9972406d62f58312c8845d2ec85fb63523ffffffffae6b67e4dce4c4b7e41f9820067f66ceab07a04c9601755ec38b"
        "67251af013e011a29651ffffffff879e9f8091208f5cec996b28204961e0b2dc63424397282c761d621111d3ce81586e3c4fffff"
        "fffff191278cc1bf84c5a9dedaaf3ce79bc1fa5dd62b85ae750b5336eccf817212bb7c7a4f60ffffffffe06a2e42f14000b2c32e"
        "40269bd5f521a1e9d3d2e204970de77f0296a0a7eabcd568361affffffff888c19501a553006e512f40c2d43b677bc29c05cfea7"
        "7a3a804640bdc21713dad446d971ffffffffbf82534ef94d966319bb4820f4ab183710828df646dd26a3af949dd80935577a0b31"
        "2547ffffffffc2bda9b1c2e266f3a86288f23561694fd256b31fc94b9356efcf0d1a38450668164a4d55ffffffffff9f7a8dd371"
        "0aac0f30fdcaf6efa0fb74979d765541e9152d264f5304e72ac119bbdfd8ffffffff102b1c5d50188f5400779e89c66b293bf3f8"
        "ce0b2477cfe9c28303fc4f346d4ad091f7b9ffffffff22d098e752ff9706c92310823eae522efd3d674bf7f57fa13d5c2c04d841"
        "3c335aa70012ffffffff699b282f83aabc3d617274cc6233109dd86b1cc7bab86b266faf0d2818d35450db46117100000023e212"
        "bf39585df4b57af2db2a4653f8bc775bfe9361751f340be344ac05a3c4",
    ),
]  # fmt: skip


def given_random(ciphertext: bytes, params: Params) -> Iterator[bytes]:
    """The random bytes that a ciphertext was made with: its IV, and each segment's nonce."""
    yield ciphertext[10:42]
    body = ciphertext[params.header_bytes :]
    for at in range(0, len(body), params.segment_bytes):
        yield body[at + 4 : at + 16]


@pytest.mark.parametrize(("name", "params", "text", "sealed"), KNOWN, ids=[row[0] for row in KNOWN])
def test_a_known_answer_opens_and_is_made_again(name: str, params: Params, text: str, sealed: str) -> None:
    agrees(params, bytes.fromhex(text), bytes.fromhex(sealed))


def agrees(params: Params, text: bytes, sealed: bytes) -> None:
    assert open_bytes(KEY, AAD, sealed, params) == text
    random = given_random(sealed, params)
    floe = Floe.new(KEY, AAD, params, random=lambda size: next(random))
    made = [floe.header]
    # The number of segments is the writer's choice where text ends with a segment: an empty one may follow.
    count = -(-(len(sealed) - params.header_bytes) // params.segment_bytes)
    for at in range(count):
        piece = text[at * params.text_bytes : (at + 1) * params.text_bytes]
        out = memoryview(bytearray(params.segment_bytes))
        made.append(bytes(out[: floe.encrypt_into(at, piece, out, last=at == count - 1, random=lambda size: next(random))]))
    assert b"".join(made) == sealed


@given(st.binary(max_size=300), st.binary(min_size=32, max_size=32), st.binary(max_size=40))
def test_what_is_sealed_opens(text: bytes, key: bytes, aad: bytes) -> None:
    sealed = seal_bytes(key, aad, text, SMALL)
    assert len(sealed) == SMALL.header_bytes + SMALL.sealed_bytes(len(text))
    assert open_bytes(key, aad, sealed, SMALL) == text


@given(st.binary(max_size=200), st.data())
def test_another_key_or_aad_does_not_open_it(text: bytes, data: st.DataObject) -> None:
    sealed = seal_bytes(KEY, AAD, text, SMALL)
    other = data.draw(st.binary(min_size=32, max_size=32).filter(lambda key: key != KEY))
    for key, aad in ((other, AAD), (KEY, data.draw(st.binary(max_size=20).filter(lambda aad: aad != AAD)))):
        with pytest.raises(Forged):
            open_bytes(key, aad, sealed, SMALL)


def test_no_bit_can_be_flipped() -> None:
    sealed = seal_bytes(KEY, AAD, os.urandom(70), SMALL)  # three segments
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Forged):
            open_bytes(KEY, AAD, changed, SMALL)


def test_it_can_be_neither_cut_nor_extended() -> None:
    sealed = seal_bytes(KEY, AAD, os.urandom(96), SMALL)  # three full segments
    for length in range(len(sealed)):
        with pytest.raises(Forged):
            open_bytes(KEY, AAD, sealed[:length], SMALL)
    for more in (b"\0", sealed[-64:], sealed[SMALL.header_bytes :]):
        with pytest.raises(Forged):
            open_bytes(KEY, AAD, sealed + more, SMALL)


@given(st.permutations(range(4)))
def test_segments_stay_in_their_places(order: list[int]) -> None:
    sealed = seal_bytes(KEY, AAD, bytes(range(128)), SMALL)
    head, body = sealed[: SMALL.header_bytes], sealed[SMALL.header_bytes :]
    moved = head + b"".join(body[at * 64 : at * 64 + 64] for at in order)
    if order == [0, 1, 2, 3]:
        assert open_bytes(KEY, AAD, moved, SMALL) == bytes(range(128))
    else:
        with pytest.raises(Forged):
            open_bytes(KEY, AAD, moved, SMALL)


def test_what_did_not_verify_is_not_left_in_memory() -> None:
    floe = Floe.new(KEY, AAD, SMALL)
    segment = memoryview(bytearray(64))
    floe.encrypt_into(0, b"x" * 32, segment, last=True)
    segment[-1] ^= 1
    text = memoryview(bytearray(b"?" * 32))
    with pytest.raises(Forged):
        floe.decrypt_into(0, segment, text, last=True)
    assert bytes(text) == bytes(32)


def test_keys_rotate_and_any_segment_opens_alone() -> None:
    params = Params(64, rotation=1)
    floe = Floe.new(KEY, AAD, params)
    sealed = [memoryview(bytearray(64)) for _ in range(6)]
    for at, segment in enumerate(sealed):
        floe.encrypt_into(at, bytes([at]) * 32, segment, last=at == 5)
    again = Floe(KEY, AAD, floe.header, params)
    for at in (5, 0, 3, 4, 1, 2):
        text = memoryview(bytearray(32))
        again.decrypt_into(at, sealed[at], text, last=at == 5)
        assert bytes(text) == bytes([at]) * 32


@pytest.mark.parametrize("size", [0, 1, 1_048_543, 1_048_544, 1_048_545])
def test_sizes_around_a_segment(size: int) -> None:
    text = os.urandom(size)
    sealed = seal_bytes(KEY, AAD, text)
    assert open_bytes(KEY, AAD, sealed) == text
    assert len(sealed) == 74 + size + OVERHEAD_BYTES * max(1, -(-size // 1_048_544))
