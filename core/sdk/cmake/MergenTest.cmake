# mergen_add_test(<name> GROUP <group> SOURCES <file>... [LIBRARIES <target>...] [PRIVATE_NETWORK] [ROOT] [TIMEOUT <s>])
#
# A GoogleTest program that `scripts/test <group>` runs. PRIVATE_NETWORK runs it in network and mount namespaces of its
# own with an empty /run, which needs root; ROOT says that it needs root for something else. As an ordinary user both
# are skipped with a line that says so.
function(mergen_add_test name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "PRIVATE_NETWORK;ROOT" "GROUP;TIMEOUT" "SOURCES;LIBRARIES")
    if(arg_UNPARSED_ARGUMENTS OR NOT arg_SOURCES OR NOT arg_GROUP)
        message(FATAL_ERROR "mergen_add_test(${name}): needs GROUP and SOURCES")
    endif()
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 300)
    endif()
    add_executable(${name} ${arg_SOURCES})
    target_link_libraries(${name} PRIVATE mergen_sdk mergen_base ${arg_LIBRARIES} GTest::gmock_main GTest::gtest)
    if(NOT TARGET tests_${arg_GROUP})
        add_custom_target(tests_${arg_GROUP})  # all programs of a group, for `scripts/test <group>`
    endif()
    add_dependencies(tests_${arg_GROUP} ${name})
    set(command $<TARGET_FILE:${name}>)
    if(arg_PRIVATE_NETWORK)
        set(command ${CMAKE_SOURCE_DIR}/tests/in-private-network ${command})
    elseif(arg_ROOT)
        set(command ${CMAKE_SOURCE_DIR}/tests/as-root ${command})
    endif()
    add_test(NAME ${name} COMMAND ${command})
    set_tests_properties(${name} PROPERTIES LABELS ${arg_GROUP} TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 77)
endfunction()
